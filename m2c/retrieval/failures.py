"""What could not be written, for messages, and when it is time to give up."""

from collections.abc import Iterable

from accelerate.utils import gather_object


NAMES_SHOWN = 3


class Failures:
    """Why texts could not be written.

    Args:
        things: what fails, in the plural.
        limit: so many of them in a row that fail when they are first asked for mean that there is no use in going on.
        ending: of the message then.

    Attributes:
        reasons: by key, the last reason, with the name of the thing.
        asked_again: how many texts were asked for again.
    """

    def __init__(self, things: str, limit: int, ending: str):
        self.things, self.limit, self.ending = things, limit, ending
        self.reasons: dict[str, str] = {}
        self.asked_again = 0
        self._in_a_row: set[str] = set()

    def add(self, key: str, name: str, reason: str, attempt: int) -> None:
        """Notes a failure.

        Raises:
            ValueError: if it is one too many.
        """
        self.reasons[key] = f"{name}: {reason}"
        # Those that are asked again have failed before: a row of them says little.
        if attempt == 0:
            self._in_a_row.add(key)
        if len(self._in_a_row) == self.limit:
            raise ValueError(
                f"{self.limit} {self.things} in a row have failed, the last of them {self.reasons[key]}. {self.ending}"
            )

    def succeeded(self) -> None:
        self._in_a_row.clear()

    def gather(self) -> None:
        """Every process learns what failed on the others; all of them have to take part."""
        notes = gather_object([(self.reasons, self.asked_again)])
        self.reasons = {key: reason for reasons, _ in notes for key, reason in reasons.items()}
        self.asked_again = sum(asked_again for _, asked_again in notes)

    def named(self, keys: Iterable[str]) -> str:
        """The first of them, in words."""
        keys = list(keys)
        return "; ".join(self.reasons[key] for key in keys[:NAMES_SHOWN]) + ("; ..." if len(keys) > NAMES_SHOWN else "")
