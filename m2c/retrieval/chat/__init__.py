"""Language models that are asked in conversations: with the weights here, or on a server."""

from .chat import ChatModel, Failure, Request
from .load import load_chat


__all__ = ["ChatModel", "Failure", "Request", "load_chat"]
