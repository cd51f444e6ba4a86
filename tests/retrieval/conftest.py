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
