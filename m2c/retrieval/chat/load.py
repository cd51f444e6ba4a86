"""Finds the chat model that a name stands for."""

import torch
from transformers import AutoProcessor, AutoTokenizer
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING

from m2c.encoding import processes
from m2c.retrieval.pretrained import Pretrained
from m2c.retrieval.scenes import EDITOR_PATH

from .chat import ChatModel
from .local import LocalChat
from .server import ServerChat


def load_chat(
    name: str,
    server: str | None = None,
    concurrency: int = 8,
    batch_size: int = 16,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
    revision: str | None = None,
) -> ChatModel:
    """A chat model: of transformers, or on a server if there is one. Weights are read when the first reply is to be written.

    Args:
        name: a repository of the Hub or a folder; `"scenes"` is the tiny editor that ships with this package. On a server, the
            name that the model has there.
        server: the URL of an OpenAI-compatible server, or the name of an inference provider, such as `"auto"`.
        concurrency: requests at once, on a server, of all processes together; at least one of each.
        batch_size: conversations at a time, without a server.
        dtype: of the weights; by default bfloat16 on a GPU and float32 on a CPU.
        device: by default the one that this process has.
        revision: of the repository: a branch, a tag or a commit; by default the newest.

    Raises:
        ValueError: if there is no such model, it does not chat, `server` is none, or a server's model should have a revision.

    Example:

    ```python
    >>> from m2c.retrieval.chat import Request, load_chat
    >>> chat = load_chat("Qwen/Qwen3-4B-Instruct-2507")
    >>> chat = load_chat("Qwen/Qwen3-4B-Instruct-2507", server="http://localhost:8000/v1")
    >>> for replies in chat.replies([Request([{"role": "user", "content": "Say hello."}])]):
    ...     print(replies)
    ```
    """
    if server is not None:
        if revision is not None:
            raise ValueError(f"a server does not tell which revision of {name!r} it runs; leave the revision out")
        return ServerChat(name, server, max(1, concurrency // processes().num_processes))
    pretrained = Pretrained(name, "chat model", revision, EDITOR_PATH if name == "scenes" else None, dtype, device)
    kind = pretrained.config.model_type
    if not pretrained.sees and type(pretrained.config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        raise ValueError(f"{name!r} is a {kind!r} model, which writes no text; choose a chat model")
    processor = pretrained.read((AutoProcessor if pretrained.sees else AutoTokenizer).from_pretrained)
    if not processor.chat_template:
        raise ValueError(f"{name!r} has no chat template; choose a model that was tuned for conversations")
    return LocalChat(pretrained, processor, batch_size)
