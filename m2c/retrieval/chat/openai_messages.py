"""Conversations as OpenAI-compatible servers take them, and what they answer."""

import base64
import io

from PIL.Image import Image

from .chat import Failure, Request, content_parts


# Up to so many pixels a picture is sent as PNG, which is exact; larger ones as JPEG, which is some five times smaller.
_LARGEST_PNG = 256 * 256


def arguments(request: Request) -> dict:
    """What [`~huggingface_hub.InferenceClient.chat_completion`] is given."""
    return {
        "messages": [{"role": message["role"], "content": _content(message)} for message in request.messages],
        "temperature": request.temperature,
        "seed": request.seed,
        "max_tokens": request.max_new_tokens,
    }


def _content(message: dict) -> str | list[dict]:
    parts = content_parts(message)
    if all(part["type"] == "text" for part in parts):
        # Servers of models without pictures may know no parts.
        return "\n".join(part["text"] for part in parts)
    return [
        part if part["type"] == "text" else {"type": "image_url", "image_url": {"url": _data_url(part["image"])}}
        for part in parts
    ]


def _data_url(picture: Image) -> str:
    kind = "png" if picture.width * picture.height <= _LARGEST_PNG else "jpeg"
    content = io.BytesIO()
    picture.convert("RGB").save(content, kind, **({"quality": 95} if kind == "jpeg" else {}))
    return f"data:image/{kind};base64,{base64.b64encode(content.getvalue()).decode()}"


def reply_of(completion: dict, limit: int) -> str | Failure:
    """The reply in a completion that was asked for with `limit` new tokens.

    Raises:
        ValueError: if the completion is malformed.
    """
    try:
        choice = completion["choices"][0]
        content, reason = choice["message"]["content"], choice["finish_reason"]
    except (TypeError, KeyError, IndexError):
        raise ValueError("no choice with a message") from None
    if reason == "length":
        return Failure(f"cut off after {limit} tokens")
    if reason == "content_filter":
        return Failure("withheld by the server's content filter")
    if content is not None and not isinstance(content, str):
        raise ValueError("a message that is no text")
    return (content or "").strip() or Failure("an empty reply")
