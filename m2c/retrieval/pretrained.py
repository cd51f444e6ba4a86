"""Models of transformers: what they are, at once; their weights, when something is to be written."""

import os
from collections.abc import Callable
from functools import cached_property
from pathlib import Path

import torch
from huggingface_hub.errors import HTTPError
from safetensors import SafetensorError
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    GenerationConfig,
    PreTrainedModel,
)
from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING

from m2c.checkpoints import public_name
from m2c.encoding import processes

from .revisions import revision_of


class Pretrained:
    """A model by its name. Who finds all its texts in the store needs no weights in memory, nor, of a repository, on disk.

    Args:
        name: a repository of the Hub or a folder.
        role: what it is wanted for, for messages, such as `"captioner"`.
        revision: of the repository: a branch, a tag or a commit; by default the newest.
        path: where it is, if not at `name`.
        dtype: of the weights; by default bfloat16 on a GPU and float32 on a CPU.
        device: by default the one that this process has.

    Attributes:
        config: its configuration.
        sees: whether it takes pictures.
        identity: `kind`, `model`, the name as others may know it, and `revision`, of a repository the commit; the dtype is not
            in it, as who has another device should find the texts too.

    Raises:
        ValueError: if there is no such model, or a folder should have a revision.
    """

    def __init__(
        self,
        name: str,
        role: str,
        revision: str | None = None,
        path: Path | None = None,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ):
        self.name, self.role, self.path = name, role, str(path or name)
        self.device = torch.device(device) if device is not None else processes().device
        self.dtype = dtype or (torch.float32 if self.device.type == "cpu" else torch.bfloat16)
        is_folder = os.path.isdir(self.path)
        if name.startswith((".", "/", "~")) and not is_folder:
            raise self.unusable("there is no such folder")
        if is_folder and revision is not None:
            raise self.unusable(f"a folder has no revision {revision}, it is known by its files; leave the revision out")
        self._revision = revision
        found = self.read(revision_of)
        if not is_folder:
            # What is read later has to be of the same commit, also if another one is pushed meanwhile.
            self._revision = found
        self.identity = {"kind": "transformers", "model": public_name(name), "revision": found}
        self.config = self.read(AutoConfig.from_pretrained)
        self.sees = type(self.config) in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING

    def read(self, load: Callable, **arguments):
        """Calls a function such as `from_pretrained`; what goes wrong becomes a `ValueError` that names the model."""
        try:
            return load(self.path, revision=self._revision, **arguments)
        except ImportError as error:
            # Processors of pictures and videos name the package that they need.
            raise self.unusable(f"{_first_sentence(error)}; install it, or choose a model that does without") from error
        except (HTTPError, OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
            raise self.unusable(" ".join(str(error).split())) from error

    def unusable(self, reason: str) -> ValueError:
        """The error that names the model and the reason."""
        return ValueError(f"cannot load a {self.role} from {self.name!r}: {reason}")

    @cached_property
    def generation_config(self) -> GenerationConfig:
        """As the model has it, with the weights or without."""
        try:
            return GenerationConfig.from_pretrained(self.path, revision=self._revision)
        except OSError:
            return GenerationConfig.from_model_config(self.config)

    @cached_property
    def model(self) -> PreTrainedModel:
        """In eval mode, on its device. Raises `ValueError` if there are no weights, or damaged ones."""
        kind = AutoModelForImageTextToText if self.sees else AutoModelForCausalLM

        def load(path: str, **arguments) -> PreTrainedModel:
            return kind.from_pretrained(path, **arguments).to(self.device).eval()

        return self.read(load, dtype=self.dtype)


def _first_sentence(error: ImportError) -> str:
    return " ".join(str(error).split()).partition(". ")[0].rstrip(".")
