"""Asks a captioner, and again for what fails."""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence

from PIL.Image import Image

from m2c.retrieval.chat import Failure
from m2c.retrieval.failures import Failures
from m2c.retrieval.text_store import CAPTION, Text

from .captioner import Captioner


TRIES = 3
# Pictures of which no caption succeeds, one after the other, until it is clear that there is no use in going on.
HOPELESS = 50


class Asking:
    """Asks for captions of pictures, up to three times for each. Pictures that cannot be read are left out.

    Args:
        captioner: that is asked.
        picture: gives the picture with a digest.
        name: gives its name, for messages.

    Attributes:
        failures: by digest, why a picture cannot be read, or why a caption of it failed last.
    """

    def __init__(self, captioner: Captioner, picture: Callable[[str], Image], name: Callable[[str], str]):
        self.captioner, self.picture, self.name = captioner, picture, name
        self.failures = Failures("pictures", HOPELESS, "What was written before is stored; run again when that is mended")

    def texts(self, digests: Sequence[str], numbers: Sequence[int]) -> Iterator[list[Text]]:
        """Yields captions with these numbers, as they are there.

        Raises:
            ValueError: if so many pictures fail in a row that there is no use in going on; the message has the last reason.
        """
        pictures = {}
        for digest in digests:
            try:
                pictures[digest] = self.picture(digest)
            except ValueError as error:
                self.failures.reasons[digest] = str(error)
        if pictures:
            yield from self._texts(pictures, numbers)

    def _texts(self, pictures: dict[str, Image], numbers: Sequence[int], attempt: int = 0) -> Iterator[list[Text]]:
        digests, failed = list(pictures), defaultdict(list)
        for replies in self.captioner.captions(list(pictures.values()), digests, numbers, attempt):
            texts = [self._text(digests[row], n, reply) for row, n, reply in replies if not isinstance(reply, Failure)]
            yield texts
            if texts:
                self.failures.succeeded()
            for row, number, reply in replies:
                if isinstance(reply, Failure):
                    failed[digests[row]].append(number)
                    self.failures.add(digests[row], self.name(digests[row]), reply.reason, attempt)
        if attempt + 1 < TRIES:
            for digest, again in failed.items():
                self.failures.asked_again += len(again)
                yield from self._texts({digest: pictures[digest]}, again, attempt + 1)

    def _text(self, digest: str, number: int, caption: str) -> Text:
        return Text(CAPTION, self.captioner.identity, source_of(digest, number), caption)


def source_of(digest: str, number: int) -> dict:
    """What a caption is made from, as the store knows it."""
    return {"image": digest, "number": number}
