"""Finds the captioner that a name stands for."""

import torch
from safetensors import SafetensorError
from transformers import AutoModelForImageTextToText, AutoProcessor, ProcessorMixin

from m2c.checkpoints import public_name
from m2c.encoding import processes
from m2c.retrieval.chat import load_chat
from m2c.retrieval.revisions import model_identity
from m2c.retrieval.scenes import CAPTIONER_PATH

from .by_chat import CaptionsByChat
from .captioner import Captioner, CaptionSettings
from .image_to_text import ImageToText


def load_captioner(
    name: str,
    settings: CaptionSettings | None = None,
    server: str | None = None,
    batch_size: int = 16,
    concurrency: int = 8,
) -> Captioner:
    """A captioner: one of transformers, in bfloat16 if it runs on a GPU; or a model on a server.

    Args:
        name: a repository of the Hub or a folder with a model that `AutoModelForImageTextToText` loads; one with a chat
            template is asked in conversations. `"scenes"` is the tiny one that ships with this package. With a server, a model
            that takes pictures, as the server calls it.
        settings: how captions are drawn.
        server: see [`m2c.retrieval.chat.load_chat`].
        batch_size: pictures at a time.
        concurrency: of a server: requests at a time.

    Raises:
        ValueError: if there is no such model, or it is of another kind, or the settings do not suit it.
    """
    settings = settings or CaptionSettings()
    if server is not None:
        return CaptionsByChat(load_chat(name, server, concurrency), settings, batch_size)
    path = str(CAPTIONER_PATH) if name == "scenes" else name
    processor = _reading(name, AutoProcessor.from_pretrained, path)
    if getattr(processor, "chat_template", None):
        return CaptionsByChat(load_chat(name), settings, batch_size)
    if not isinstance(processor, ProcessorMixin):
        raise ValueError(f"cannot load a captioner from {name!r}: it has no processor of images and texts")
    device = processes().device
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    model = _reading(name, AutoModelForImageTextToText.from_pretrained, path, dtype=dtype).to(device).eval()
    identity = {"kind": "transformers", **model_identity(path, model.config), "dtype": str(dtype).removeprefix("torch.")}
    identity["model"] = public_name(name)
    return ImageToText(model, processor, identity, settings, batch_size)


def _reading(name: str, load, *args, **kwargs):
    """Calls `load`; what goes wrong in reading the checkpoint becomes a `ValueError` that names it."""
    try:
        return load(*args, **kwargs)
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise ValueError(f"cannot load a captioner from {name!r}: {error}") from error
