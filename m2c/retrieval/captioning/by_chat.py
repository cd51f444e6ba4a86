"""Captioners that are asked for a caption: models that chat about pictures, here or on a server."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace

from PIL.Image import Image

from m2c.retrieval.chat import ChatModel, Failure, Request

from .captioner import CaptionSettings, Reply, one_line


PROMPT = (
    "Describe this picture in one sentence of at most twenty words: what it shows, with colours, materials and places. "
    "Reply with the sentence alone."
)
MAX_NEW_TOKENS = 96


class CaptionsByChat:
    """A [`Captioner`] that asks for each caption in a conversation of its own, with a seed of its own.

    Args:
        chat: a model that takes pictures.
        settings: how captions are drawn.
        batch_size: pictures at a time.

    Raises:
        ValueError: if the settings have a `top_p`.
    """

    def __init__(self, chat: ChatModel, settings: CaptionSettings, batch_size: int):
        if settings.top_p is not None:
            raise ValueError("models that chat draw from all words; leave out top_p, and lower the temperature instead")
        self.chat, self.batch_size = chat, batch_size
        self.settings = replace(
            settings, prompt=settings.prompt or PROMPT, max_new_tokens=settings.max_new_tokens or MAX_NEW_TOKENS
        )
        self.identity = {**chat.identity, **asdict(self.settings)}

    def captions(
        self, pictures: Sequence[Image], digests: Sequence[str], numbers: Sequence[int], attempt: int = 0
    ) -> Iterator[list[Reply]]:
        places = [(row, number) for row in range(len(pictures)) for number in numbers]
        requests = [
            self._request(pictures[row], f"{self.settings.seed} {digests[row]} {number} {attempt}") for row, number in places
        ]
        for replies in self.chat.replies(requests):
            yield [(*places[place], reply if isinstance(reply, Failure) else one_line(reply)) for place, reply in replies]

    def _request(self, picture: Image, key: str) -> Request:
        content = [{"type": "image", "image": picture}, {"type": "text", "text": self.settings.prompt}]
        # 31 bits, as many as every server takes.
        seed = int.from_bytes(hashlib.sha256(key.encode()).digest()[:4]) >> 1
        return Request(({"role": "user", "content": content},), seed, self.settings.temperature, self.settings.max_new_tokens)
