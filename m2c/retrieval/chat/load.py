"""Finds the chat model that a name stands for."""

from pathlib import Path

import torch
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText, AutoProcessor, AutoTokenizer
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING, MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING

from m2c.checkpoints import public_name
from m2c.encoding import processes
from m2c.retrieval.revisions import model_identity
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
    """A chat model: of transformers, or on a server if there is one.

    Args:
        name: a repository of the Hub or a folder; `"scenes"` is the tiny editor that ships with this package. On a server, the
            name that the model has there.
        server: the URL of an OpenAI-compatible server, or the name of an inference provider, such as `"auto"`.
        concurrency: requests at once, on a server.
        batch_size: conversations at a time, without a server.
        dtype: of the weights; by default bfloat16 on a GPU and float32 on a CPU.
        device: by default the one that this process has.
        revision: of the repository; by default the newest.

    Raises:
        ValueError: if there is no such model, it does not chat, or `server` is none.

    Example:

    ```python
    >>> from m2c.retrieval.chat import Request, load_chat
    >>> chat = load_chat("Qwen/Qwen3-4B-Instruct-2507")
    >>> chat = load_chat("Qwen/Qwen3-4B-Instruct-2507", server="http://localhost:8000/v1")
    >>> for position, reply in chat.replies([Request([{"role": "user", "content": "Say hello."}])]):
    ...     print(reply)
    ```
    """
    if server is not None:
        return ServerChat(name, server, concurrency)
    device = torch.device(device) if device is not None else processes().device
    dtype = dtype or (torch.float32 if device.type == "cpu" else torch.bfloat16)
    try:
        return _load(name, batch_size, dtype, device, revision)
    except (OSError, RuntimeError, ImportError, SafetensorError) as error:
        raise ValueError(f"cannot load a chat model from {name!r}: {error}") from error


def _load(name: str, batch_size: int, dtype: torch.dtype, device: torch.device, revision: str | None) -> LocalChat:
    if name.startswith((".", "/", "~")) and not Path(name).exists():
        raise OSError("there is no such folder")
    path = str(EDITOR_PATH) if name == "scenes" else name
    config = AutoConfig.from_pretrained(path, revision=revision)
    sees = type(config) in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING
    if not sees and type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        raise ValueError(f"{name!r} is a {config.model_type!r} model, which writes no text; choose a chat model")
    processor = (AutoProcessor if sees else AutoTokenizer).from_pretrained(path, revision=revision)
    if not processor.chat_template:
        raise ValueError(f"{name!r} has no chat template; choose a model that was tuned for conversations")
    kind = AutoModelForImageTextToText if sees else AutoModelForCausalLM
    model = kind.from_pretrained(path, revision=revision, dtype=dtype).to(device).eval()
    weights = {**model_identity(path, config), "model": public_name(name)}
    identity = {"kind": "transformers", **weights, "dtype": str(dtype).removeprefix("torch.")}
    return LocalChat(model, processor, identity, batch_size)
