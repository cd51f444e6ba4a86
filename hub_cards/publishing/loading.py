"""Loads a retriever as a stranger does, in a fresh process that does not have this package; and a data set."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from safetensors.torch import load_file

from .secrets import without_secrets


STRANGER, READER = (Path(__file__).with_name(name) for name in ("stranger.py", "reader.py"))
# Seconds that a fresh process may take, with all that it downloads.
LONGEST = 4 * 3600.0


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
    with tempfile.TemporaryDirectory() as folder:
        output = _load(STRANGER, name, [json.dumps(of_model), json.dumps(of_processor)], Path(folder))
        features = load_file(output)
    broken = [kind for kind, tensor in features.items() if not tensor.isfinite().all()]
    if broken:
        raise ValueError(f"{name} gives features that are not finite ({', '.join(broken)}); is the checkpoint whole?")
    return features


def probe_rows(name: str | Path, revision: str | None = None) -> dict[str, dict[str, dict]]:
    """What `load_dataset` gives of a data set: for each configuration and split the number of `rows` and the `columns`, by name
    with their kinds.

    Args:
        name: a folder, or a repository of the Hub.
        revision: of the repository.

    Raises:
        ValueError: if it does not load in a fresh process.
    """
    arguments = {} if revision is None else {"revision": revision}
    with tempfile.TemporaryDirectory() as folder:
        return json.loads(_load(READER, name, [json.dumps(arguments)], Path(folder)).read_text())


def _load(script: Path, name: str | Path, arguments: list[str], folder: Path) -> Path:
    """Runs one of the scripts in a folder, and returns what it wrote there."""
    name, output = str(Path(name).resolve()) if os.path.isdir(name) else str(name), folder / "output"
    # Not in the working directory, where a folder may have the name of the repository.
    if reason := why_it_fails(["-P", str(script), name, *arguments, str(output)], folder):
        raise ValueError(f"{name} does not load in a fresh process: {reason}")
    return output


def why_it_fails(arguments: list[str], folder: Path, **variables: str) -> str | None:
    """Runs Python in a folder. Where it fails, the last line that it prints should say why: that line, without secrets.

    Args:
        arguments: of `python`.
        folder: to run it in.
        variables: more of the environment.
    """
    environment = {**os.environ, **variables}
    command = [sys.executable, *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, cwd=folder, env=environment, timeout=LONGEST)
    except subprocess.TimeoutExpired:
        return f"it was not done after {LONGEST:.0f} seconds"
    if done.returncode:
        return without_secrets(done.stdout.strip().rpartition("\n")[2]) or f"the process ended with {done.returncode}"
    return None


def differences(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor], tolerance: float = 1e-5) -> list[str]:
    """Which features of two probes differ by more than `tolerance`, relative and absolute."""
    return [kind for kind, tensor in one.items() if not torch.allclose(tensor, other[kind], atol=tolerance, rtol=tolerance)]
