"""What a captioner is, and how it is asked."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from PIL.Image import Image

from m2c.retrieval.chat import Failure


@dataclass(frozen=True)
class CaptionSettings:
    """How captions are drawn. Each of the settings makes other captions; `None` is what suits the captioner.

    Args:
        temperature: 0 makes all captions of a picture the same.
        top_p: a word is drawn from the fewest that together have this probability; of models that chat only `None`, from all.
        seed: of the sampling.
        prompt: for a model that chats, what it is asked to do; for others, how a caption begins, which is then left out of it.
        max_new_tokens: where a caption ends at the latest; that of a model that chats would be cut off, and counts as failed.

    Raises:
        ValueError: if one of them is out of range.
    """

    temperature: float = 1.0
    top_p: float | None = None
    seed: int = 0
    prompt: str | None = None
    max_new_tokens: int | None = None

    def __post_init__(self):
        if not 0 <= self.temperature < float("inf"):
            raise ValueError(f"the temperature of captions is a number of 0 or above, not {self.temperature}")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise ValueError(f"top_p of captions is above 0 and at most 1, not {self.top_p}")
        if self.max_new_tokens is not None and self.max_new_tokens < 1:
            raise ValueError(f"a caption has max_new_tokens of 1 or more, not {self.max_new_tokens}")


# Of a picture, by its place in the batch, one of its captions, by its number.
Reply = tuple[int, int, str | Failure]


class Captioner(Protocol):
    """Writes captions of pictures.

    Attributes:
        identity: all that decides a caption beside picture and number; the generator of [`m2c.retrieval.text_store.Text`].
        batch_size: pictures at a time.
    """

    identity: dict
    batch_size: int

    def captions(
        self, pictures: Sequence[Image], digests: Sequence[str], numbers: Sequence[int], attempt: int = 0
    ) -> Iterator[list[Reply]]:
        """Writes for each picture the captions of these numbers.

        A caption depends on picture, number and attempt alone, not on the batch, nor on how many are asked for: five captions
        are the first five of fifteen.

        Args:
            pictures: upright RGB.
            digests: of the pictures.
            numbers: which of its captions each picture gets.
            attempt: asked again, with 1, 2, ..., it draws anew.

        Yields:
            Captions that are there, in any order, and why others are not; of every picture and number one.
        """
        ...


def one_line(text: str) -> str | Failure:
    """The text without line breaks and needless spaces. Of nothing but those nothing is left, and that is no caption."""
    return " ".join(text.split()) or Failure("an empty caption")
