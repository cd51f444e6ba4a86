"""What a language model replied, as the text that was asked for, or why it is none. Nothing is guessed or put in its place."""

import re
import unicodedata

from m2c.retrieval.chat import Failure
from m2c.retrieval.text_store import ADDED_OBJECTS, EDITED_CAPTION


# A CLIP reads 77 tokens at most.
LONGEST = {EDITED_CAPTION: 400, ADDED_OBJECTS: 200}  # characters

# Some chat templates open the thinking themselves, so that a reply holds its end alone.
_THOUGHT = re.compile(r"</think(?:ing)?>")
_LABEL = re.compile(
    r"[*_#\s]*(?:the )?(?:(?:edited|new|modified|updated) (?:caption|description)|caption|(?:objects? )?(?:most likely )?added"
    r"(?: objects?)?|new objects?|answer|reply|output)"
    r"[*_]*\s*:[*_]*\s*",
    re.IGNORECASE,
)
_QUOTES = {'"': '"', "'": "'", "`": "`", "“": "”", "\u2018": "\u2019", "«": "»", "„": "“", "「": "」"}
_REFUSAL = re.compile(
    r"(?:i'm|i am|we're) (?:very |so |really )?(?:sorry|afraid|unable|not able)|(?:sorry|apologies|unfortunately)\b"
    r"|(?:i|we) (?:cannot|can not|can't|could not|couldn't|do not|don't|apologi[sz]e)\b|as an? (?:ai|language model)\b",
    re.IGNORECASE,
)
_CHATTER = re.compile(
    r"(?:sure|certainly|of course|here is|here's|here are)\b|(?:okay|ok)\s*[,.!:]|(?:yes|no|n/a)[.!]?$", re.IGNORECASE
)
_PLACEHOLDER = re.compile(r"\[.*\]|<.*>|\{.*\}", re.DOTALL)
_NOTHING = re.compile(
    r"(?:nothing|none|n/a|no|no (?:(?:new|added|other|additional) )*(?:objects?|items?|additions?|changes?))"
    r"(?: else| new| additional)?(?: (?:is|are|was|were|will be|has been|have been))?(?: added| new)?",
    re.IGNORECASE,
)
# What begins like nothing and goes on says something, but not as a noun phrase.
_UNCLEAR = re.compile(r"(?:nothing|none|no (?:\w+ )?(?:objects?|items?|additions?|changes?))\b(?! but\b)", re.IGNORECASE)
_BOLD = re.compile(r"(\*\*|__)(?!\s)((?:(?!\1).)+)(?<!\s)\1")
_ITEM = re.compile(r"(?:[-*•]|\d{1,2}[.)])\s+")


def parse(reply: str, kind: str) -> str | Failure:
    """The text in a reply.

    What surrounds it without being part of it is taken off: thinking aloud, a label such as "Edited caption:", quotation marks,
    marks of bold text and of a list.

    Args:
        reply: of the language model.
        kind: `"edited caption"` or `"added objects"`; the latter may be nothing, which is `""`.

    Returns:
        One line, or a [`Failure`] if the reply is empty, a refusal, chatter, several lines, over-long, or not a text at all.
    """
    # The full stop of a caption may end a sentence, that of a noun phrase does not belong to it.
    text = _unwrapped(reply, " ." if kind == ADDED_OBJECTS else "")
    if kind == ADDED_OBJECTS and _NOTHING.fullmatch(text):
        return ""
    if kind == ADDED_OBJECTS and _UNCLEAR.match(text):
        return Failure(f"neither nothing nor a noun phrase: {_shown(reply)}")
    fault = _fault(text, LONGEST[kind])
    return " ".join(text.split()) if fault is None else Failure(f"{fault}: {_shown(reply)}")


def _unwrapped(text: str, ending: str) -> str:
    before = None
    while text != before:
        before = text
        text = _THOUGHT.split(text)[-1].strip().rstrip(ending)
        text = _unquoted(_LABEL.sub("", text, count=1) if _LABEL.match(text) else text)
        text = _ITEM.sub("", text, count=1) if _ITEM.match(text) else text
        text = bold[2] if (bold := _BOLD.fullmatch(text)) else text
    return text


def _unquoted(text: str) -> str:
    """Without the quotation marks around the whole; those of "a" and "b" stay."""
    if len(text) < 2 or _QUOTES.get(text[0]) != text[-1]:
        return text
    inside = text[1:-1]
    return text if text[0] in inside or text[-1] in inside else inside


def _fault(text: str, longest: int) -> str | None:
    if text.startswith(("<think>", "<thinking>")):
        return "thinking without an end"
    if not any(character.isalnum() for character in text):
        return "a reply without words"
    if len(text.splitlines()) > 1:
        return "a reply of several lines"
    if any(unicodedata.category(character) in ("Cc", "Cs") and not character.isspace() for character in text):
        return "a reply with control characters"
    plain = text.replace("\u2019", "'")
    if _REFUSAL.match(plain):
        return "a refusal"
    if _CHATTER.match(plain):
        return "chatter instead of the text alone"
    if _PLACEHOLDER.fullmatch(text):
        return "a placeholder"
    return f"a reply of more than {longest} characters" if len(text) > longest else None


def _shown(reply: str) -> str:
    line = ascii(" ".join(reply.split()))
    return line if len(line) <= 80 else f"{line[:77]}..."
