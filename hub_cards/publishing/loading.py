"""Loads a retriever as a stranger does: in a fresh process that does not have this package."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from safetensors.torch import load_file

from .secrets import without_secrets


STRANGER = Path(__file__).with_name("stranger.py")


def probe(name: str | Path, revision: str | None = None, is_adapter: bool = False) -> dict[str, torch.Tensor]:
    """What a stranger gets from a folder or repository: un-normalised float32 features of two drawn images, with words and
    without, and of words alone.

    Args:
        name: a folder, or a repository of the Hub.
        revision: of the repository.
        is_adapter: whether it is an adapter alone. Its base has revisions of its own.

    Raises:
        ValueError: if it does not load in a fresh process, or gives numbers that are not finite.
    """
    of_processor = {} if revision is None else {"revision": revision}
    of_model = {"adapter_kwargs": of_processor} if is_adapter else of_processor
    name = str(Path(name).resolve()) if os.path.isdir(name) else str(name)
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder, "features.safetensors")
        command = [sys.executable, "-P", str(STRANGER), name, json.dumps(of_model), json.dumps(of_processor), str(output)]
        # Not in the working directory, where a folder may have the name of the repository.
        done = subprocess.run(command, capture_output=True, text=True, cwd=folder)
        if done.returncode:
            reason = done.stdout.strip().rpartition("\n")[2] or f"the process ended with {done.returncode}"
            raise ValueError(f"{name} does not load in a fresh process: {without_secrets(reason)}")
        features = load_file(output)
    broken = [kind for kind, tensor in features.items() if not tensor.isfinite().all()]
    if broken:
        raise ValueError(f"{name} gives features that are not finite ({', '.join(broken)}); is the checkpoint whole?")
    return features


def differences(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor], tolerance: float = 1e-5) -> list[str]:
    """Which features of two probes differ by more than `tolerance`, relative and absolute."""
    return [kind for kind, tensor in one.items() if not torch.allclose(tensor, other[kind], atol=tolerance, rtol=tolerance)]
