"""A text that a model wrote, with all that decided it."""

import hashlib
import json
from dataclasses import dataclass


CAPTION, EDITED_CAPTION, ADDED_OBJECTS = "caption", "edited caption", "added objects"
KINDS = (CAPTION, EDITED_CAPTION, ADDED_OBJECTS)


def canonical(content: dict | list) -> str:
    """JSON that is the same for equal content, in ASCII. Raises `TypeError` or `ValueError` for what JSON cannot hold."""
    return json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)


def text_key(kind: str, generator: dict, source: dict) -> str:
    """SHA-256 of all that decides a text, by which it is found again before it is written."""
    return hashlib.sha256(canonical([kind, generator, source]).encode()).hexdigest()


@dataclass(frozen=True)
class Text:
    """A text that a model wrote.

    Args:
        kind: one of `KINDS`.
        generator: the model, with settings and prompts: what JSON can hold, its public name under `"model"`.
        source: what it was made from: of a caption `{"image": <digest>, "number": <which of several>}`.
        text: the text.
    """

    kind: str
    generator: dict
    source: dict
    text: str

    @property
    def key(self) -> str:
        return text_key(self.kind, self.generator, self.source)
