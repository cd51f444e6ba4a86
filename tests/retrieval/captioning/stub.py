"""A captioner that writes at once, keeps a log, and fails where it is told to."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from PIL.Image import Image

from m2c.retrieval.captioning.captioner import Reply
from m2c.retrieval.chat import Failure


COUNT = 5  # captions of a picture


class StubCaptioner:
    """Args: the file that finished calls are noted in, what is refused (digest, number, attempt), and how it groups replies."""

    def __init__(
        self, log: Path, refused: frozenset[tuple[str, int, int]] = frozenset(), batch_size: int = 2, one_by_one=False
    ):
        self.log, self.refused, self.batch_size, self.one_by_one = log, refused, batch_size, one_by_one
        self.identity = {"model": "stub"}
        log.touch()

    def captions(
        self, pictures: Sequence[Image], digests: Sequence[str], numbers: Sequence[int], attempt: int = 0
    ) -> Iterator[list[Reply]]:
        assert len(pictures) == len(digests) <= self.batch_size
        replies = []
        for row, digest in enumerate(digests):
            for number in numbers:
                refused = (digest, number, attempt) in self.refused
                replies.append((row, number, Failure("no comment") if refused else caption_of(digest, number)))
                self._note(f"{digest} {number}")
                if self.one_by_one:
                    yield [replies.pop()]
        if replies:
            yield replies

    def _note(self, line: str) -> None:
        # Unbuffered, and whole lines, as several processes may write.
        log = os.open(self.log, os.O_WRONLY | os.O_APPEND)
        os.write(log, f"{line}\n".encode())
        os.close(log)

    @property
    def calls(self) -> list[tuple[str, int]]:
        lines = map(str.split, self.log.read_text().splitlines())
        return [(digest, int(number)) for digest, number in lines]


def caption_of(digest: str, number: int) -> str:
    return f"caption {number} of {digest}"
