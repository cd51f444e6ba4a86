"""Prompts with a pseudo-word, encoded so that its position is known and never searched for."""

import re
from dataclasses import dataclass


PSEUDO_WORD = "*"
TEXT_FIELD = "{text}"
# What CLIP was trained with, for tokenizers that do not say.
CLIP_CONTEXT_LENGTH = 77


@dataclass(frozen=True)
class EncodedPrompt:
    """Token ids from start to end of text, where the pseudo-word stands, and how long the user's text was before and after
    it was cut to fit."""

    input_ids: list[int]
    pseudo_word_position: int | None
    text_length: int = 0
    kept_length: int = 0


class PromptEncoder:
    """Fills one template, such as `"a photo of * that {text}"`, with user texts.

    The template is cut at its pseudo-word `*` and its `{text}` first; each part is tokenized by itself. So a `*`, a `{text}` or
    a special token in a user's text is text like any other, and a text that is too long loses its own end, not the template's.

    Raises:
        ValueError: if the template leaves no room for a text.
    """

    def __init__(self, tokenizer, template: str):
        self.tokenizer = tokenizer
        self.parts = [part for part in re.split(r"(\*|\{text\})", template) if part.strip()]
        self.context_length = context_length(tokenizer)
        self._fixed = {part: self._tokens(part) for part in self.parts if part != TEXT_FIELD}
        # Any single id serves: the model replaces its embedding.
        self._fixed[PSEUDO_WORD] = (self._tokens(PSEUDO_WORD) or [tokenizer.unk_token_id])[:1]
        self._room = self.context_length - 2 - sum(len(self._fixed[part]) for part in self.parts if part != TEXT_FIELD)
        if self._room < 1:
            raise ValueError(f"the template {template!r} leaves no room for a text in {self.context_length} tokens")

    def _tokens(self, text: str) -> list[int]:
        # split_special_tokens: "<|endoftext|>" typed by a user must not end the text.
        return self.tokenizer(text, add_special_tokens=False, split_special_tokens=True, verbose=False).input_ids

    def __call__(self, text: str) -> EncodedPrompt:
        input_ids, position, tokens = [self.tokenizer.bos_token_id], None, []
        for part in self.parts:
            if part == PSEUDO_WORD:
                position = len(input_ids)
            if part == TEXT_FIELD:
                tokens = self._tokens(text)
                input_ids += tokens[: self._room]
            else:
                input_ids += self._fixed[part]
        input_ids.append(self.tokenizer.eos_token_id)
        return EncodedPrompt(input_ids, position, len(tokens), min(len(tokens), self._room))


def context_length(tokenizer) -> int:
    """Tokens that the text tower takes."""
    limit = tokenizer.model_max_length
    return limit if limit < 1_000_000 else CLIP_CONTEXT_LENGTH


def check_template(template: str, name: str, fields: tuple[str, ...]) -> None:
    """Raises `ValueError`, naming the template, unless it holds each of `fields` once and no other field."""
    for field in (PSEUDO_WORD, TEXT_FIELD):
        wanted = int(field in fields)
        if template.count(field) != wanted:
            raise ValueError(f"{name} must hold {field!r} {('not at all', 'exactly once')[wanted]}; it is {template!r}")


def clean_text(text: str) -> str:
    """One line: white space of any kind becomes single spaces. Lone surrogates, which no tokenizer takes, become `?`."""
    return " ".join(text.encode("utf-8", "replace").decode("utf-8").split())
