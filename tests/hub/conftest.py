import random
from pathlib import Path

import pytest

from .fresh_process import HubClient
from .server import LocalHub


@pytest.fixture
def hub():
    """An empty Hub. The test fails if the server did, or was asked for what it does not speak."""
    with LocalHub() as hub:
        yield hub
        assert not hub.errors


@pytest.fixture
def token(hub) -> str:
    """That of the user `ana`."""
    return hub.add_user("ana")


@pytest.fixture
def client(hub, token, tmp_path) -> HubClient:
    """Ana at her machine."""
    return HubClient(hub, tmp_path / "ana", token)


@pytest.fixture
def reader(hub, tmp_path) -> HubClient:
    """`ben`, another user, who owns nothing."""
    return HubClient(hub, tmp_path / "ben", hub.add_user("ben"))


@pytest.fixture
def stranger(hub, tmp_path) -> HubClient:
    """Somebody without a token."""
    return HubClient(hub, tmp_path / "stranger", token=None)


README = """---
license: apache-2.0
library_name: transformers
pipeline_tag: zero-shot-image-classification
tags:
- composed-image-retrieval
---
# A model
"""


@pytest.fixture
def files() -> dict[str, bytes]:
    """What somebody publishes: text, a picture, and weights too large for one packet of any kind."""
    return {
        "README.md": README.encode(),
        "assets/curve.png": b"\x89PNG\0" + random.Random(2).randbytes(1000),
        "config.json": b'{"version": 1}',
        "model.safetensors": random.Random(1).randbytes(4_000_000),
    }


@pytest.fixture
def folder(files, tmp_path) -> Path:
    """The same on disk."""
    for path, content in files.items():
        (tmp_path / "folder" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "folder" / path).write_bytes(content)
    return tmp_path / "folder"
