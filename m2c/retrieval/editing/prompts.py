"""What a language model is asked: an instruction and examples of our own as earlier turns, then the request itself.

A template sets `instruction`, `examples` (captions, modification and reply of each) and `request`, the macro that writes a turn
of the user. Captions and modification texts are values to it, so nothing that they hold is read as a template.
"""

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined


# The benchmarks whose images are asked about in words of their own.
BENCHMARKS = ("cirr", "circo", "fashioniq", "scenes")
GENERAL = "general"

_TEMPLATES = Environment(
    loader=FileSystemLoader(Path(__file__).parent / "templates"),
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


@dataclass(frozen=True)
class EditRequest:
    """What an edit is made from.

    Args:
        captions: one caption of the reference image, or several.
        modification: the modification text.
    """

    captions: tuple[str, ...]
    modification: str


@dataclass(frozen=True)
class Prompt:
    """What to ask about the images of a benchmark.

    Args:
        name: one of [`BENCHMARKS`], or `"general"`.
        kind: `"edited caption"` or `"added objects"`.
    """

    name: str
    kind: str

    def messages(self, request: EditRequest) -> list[dict]:
        """The conversation up to the reply that is asked for, in turns of user and assistant."""
        *examples, last = [*self._template.examples, {"captions": request.captions, "modification": request.modification}]
        turns = []
        for example in examples:
            turns += [_turn("user", self._ask(example)), _turn("assistant", example["reply"])]
        turns.append(_turn("user", self._ask(last)))
        if instruction := str(self._template.instruction).strip():
            # Not as a turn of the system, as some chat templates know none.
            turns[0] = _turn("user", f"{instruction}\n\n{turns[0]['content']}")
        return turns

    @property
    def digest(self) -> str:
        """SHA-256 of what is the same in every conversation."""
        return digest(self.messages(EditRequest(("",), "")))

    @cached_property
    def _template(self):
        return _TEMPLATES.get_template(f"{self.name}/{self.kind.replace(' ', '_')}.jinja").module

    def _ask(self, example: dict) -> str:
        return str(self._template.request(example["captions"], example["modification"]))


def _turn(role: str, content: str) -> dict:
    return {"role": role, "content": content}


def digest(messages: list[dict]) -> str:
    """SHA-256 of a conversation, in hexadecimal."""
    return hashlib.sha256(json.dumps(messages, sort_keys=True).encode()).hexdigest()
