"""Which weights a name stood for."""

import hashlib
import os
from pathlib import Path

from huggingface_hub import hf_hub_download


# All that decides what a model writes: weights, configurations, tokenizers, chat templates.
_PATTERNS = ("*.safetensors", "*.bin", "*.json", "*.model", "*.txt", "*.jinja")


def revision_of(path: str, revision: str | None = None) -> str:
    """Of a folder a SHA-256 of its files, of a repository the commit.

    Args:
        path: as `from_pretrained` takes it.
        revision: of the repository: a branch, a tag or a commit; by default the newest.

    Raises:
        ValueError, OSError, huggingface_hub.errors.HTTPError: if there is no such repository with a configuration.
    """
    if os.path.isdir(path):
        return _digest(Path(path))
    # In the cache of the Hub's library the files of a commit lie in a folder of its name.
    return Path(hf_hub_download(path, "config.json", revision=revision)).parent.name


def _digest(folder: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted({path for pattern in _PATTERNS for path in folder.glob(pattern)}):
        with path.open("rb") as file:
            digest.update(f"{path.name} {hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
    return digest.hexdigest()
