"""A language model that edits captions: what it is asked, and how its replies are read."""

from dataclasses import dataclass

from m2c.retrieval.chat import ChatModel, Failure, Request
from m2c.retrieval.text_store import ADDED_OBJECTS, EDITED_CAPTION

from .parsing import parse
from .prompts import BENCHMARKS, GENERAL, Prompt


# The first time a reply is the likeliest one; asked again, a model has to come up with another.
RETRY_TEMPERATURE = 0.7


@dataclass(frozen=True)
class Editor:
    """Edits captions of a benchmark's images.

    Args:
        chat: the language model.
        benchmark: whose images they are; those without prompts of their own share the general ones.
        seed: of the replies to what is asked again.
        max_new_tokens: a reply that is longer has failed.
        tries: how often it is asked for a text until a reply can be used. This decides whether there is a text, but not what it
            says, so it is not part of the identity.

    Raises:
        ValueError: if `tries` is below 1.
    """

    chat: ChatModel
    benchmark: str
    seed: int = 0
    max_new_tokens: int = 128
    tries: int = 4

    def __post_init__(self):
        if self.tries < 1:
            raise ValueError(f"an editor is asked at least once, not {self.tries} times")

    @property
    def identity(self) -> dict:
        """All that decides a reply beside the captions and the modification text, as JSON can hold it."""
        return {
            **self.chat.identity,
            "prompts": {kind: self.prompt(kind).digest for kind in (EDITED_CAPTION, ADDED_OBJECTS)},
            **self._settings,
        }

    def generator(self, kind: str) -> dict:
        """The part of [`identity`] that decides texts of this kind."""
        prompt = self.prompt(kind)
        return {**self.chat.identity, "prompt": {"name": prompt.name, "digest": prompt.digest}, **self._settings}

    def prompt(self, kind: str) -> Prompt:
        return Prompt(self.benchmark if self.benchmark in BENCHMARKS else GENERAL, kind)

    def ask(self, messages: list[dict], attempt: int = 0) -> Request:
        """What the language model is given; asked again (`attempt` 1, 2, ...), it draws anew."""
        return Request(messages, self.seed + attempt, RETRY_TEMPERATURE if attempt else 0.0, self.max_new_tokens)

    def read(self, reply: str | Failure, kind: str) -> str | Failure:
        """The text in a reply, or why there is none; see [`~m2c.retrieval.editing.parsing.parse`]."""
        return reply if isinstance(reply, Failure) else parse(reply, kind)

    @property
    def _settings(self) -> dict:
        return {"seed": self.seed, "temperature": 0.0, "max_new_tokens": self.max_new_tokens}
