import shutil
from pathlib import Path

import huggingface_hub
import pytest

from .chat_server import ChatServer


@pytest.fixture
def chat_server(monkeypatch):
    """A chat server on this machine, which this process may ask."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with ChatServer() as server:
        yield server


@pytest.fixture
def downloaded(monkeypatch, tmp_path):
    """Lays a model's folder into the cache of the Hub's library, as its newest commit there."""
    cache = tmp_path / "hub"
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(cache))

    def lay(folder: str, name: str, commit: str, without_weights: bool = False) -> Path:
        repository = cache / f"models--{name.replace('/', '--')}"
        snapshot = repository / "snapshots" / commit
        shutil.copytree(folder, snapshot, ignore=shutil.ignore_patterns("*.safetensors" if without_weights else ""))
        (repository / "refs").mkdir(exist_ok=True)
        (repository / "refs" / "main").write_text(commit)
        return snapshot

    return lay
