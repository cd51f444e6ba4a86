"""Which weights a name stood for."""

import hashlib
import os
from pathlib import Path

from transformers import PreTrainedConfig

from m2c.checkpoints import public_name


# All that decides what a model writes: weights, configurations, tokenizers, chat templates.
_PATTERNS = ("*.safetensors", "*.bin", "*.json", "*.model", "*.txt", "*.jinja")


def model_identity(name: str, config: PreTrainedConfig) -> dict:
    """`model`, the name as others may know it, and `revision`: of a repository the commit, of a folder a SHA-256 of its files.

    Args:
        name: as `from_pretrained` took it.
        config: as it came from there.
    """
    revision = _digest(Path(name)) if os.path.isdir(name) else config._commit_hash
    return {"model": public_name(name), "revision": revision}


def _digest(folder: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted({path for pattern in _PATTERNS for path in folder.glob(pattern)}):
        with path.open("rb") as file:
            digest.update(f"{path.name} {hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
    return digest.hexdigest()
