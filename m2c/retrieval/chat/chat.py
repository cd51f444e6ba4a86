"""What a chat model is, and how it is asked."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from PIL.Image import Image


@dataclass(frozen=True)
class Request:
    """A conversation that a reply is asked for.

    Args:
        messages: turns `{"role": "system" | "user" | "assistant", "content": ...}`. The content is a text, or a list of parts
            `{"type": "text", "text": ...}` and `{"type": "image", "image": PIL.Image}`.
        seed: of the sampling. Requests that are drawn independently have different ones.
        temperature: 0 is greedy.
        max_new_tokens: where a reply is cut off; a reply that is cut off is a [`Failure`].
    """

    messages: Sequence[dict]
    seed: int = 0
    temperature: float = 0.0
    max_new_tokens: int = 64


@dataclass(frozen=True)
class Failure:
    """Instead of a reply: why there is none, in one line."""

    reason: str


class ChatModel(Protocol):
    """Replies to conversations.

    Attributes:
        identity: all that decides a reply beside the request, as JSON can hold it: `kind`, `model`, `revision` and what else
            there is. It is made for publishing: neither a token is in it nor where anything lies.
    """

    identity: dict

    def replies(self, requests: Sequence[Request]) -> Iterator[list[tuple[int, str | Failure]]]:
        """Yields the replies that are there, each with its position, in any order, every position once.

        Who keeps them should do so before going on, as nothing but what is under way then would be lost.

        Args:
            requests: may be made as they are looked up, which happens when their turn comes, and perhaps on another thread.

        Raises:
            ValueError, OSError: if something is wrong that all requests share. Replies that are there were yielded before.
        """
        ...


def content_parts(message: dict) -> list[dict]:
    """The content of a message as a list of parts."""
    content = message["content"]
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


def pictures_of(request: Request) -> list[Image]:
    """The pictures of a conversation, in order."""
    return [part["image"] for message in request.messages for part in content_parts(message) if part["type"] == "image"]


def length_of(request: Request) -> int:
    """The characters of a conversation's texts."""
    return sum(len(part.get("text", "")) for message in request.messages for part in content_parts(message))
