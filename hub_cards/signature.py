"""By which a card is recognised that was generated, and that nobody has changed since."""

import hashlib
import re


MARK = "<!-- m2c {}: a card that was generated. m2c publish replaces it, unless somebody has changed it -->"
_MARK = re.compile(r"\s*" + re.escape(MARK).replace(r"\{\}", "([0-9a-f]{16})") + r"\s*\Z")
_METADATA = re.compile(r"\A\s*---\r?\n.*?^---\s*", re.DOTALL | re.MULTILINE)


def sign(card: str) -> str:
    """The same with a mark below it."""
    return f"{card.rstrip()}\n\n{MARK.format(_digest(card))}\n"


def is_handwritten(card: str) -> bool:
    """Whether somebody wrote in a card, or changed one that was generated. In metadata alone there is nothing to read."""
    mark = _MARK.search(card)
    if mark:
        return mark[1] != _digest(card[: mark.start()])
    return bool(_METADATA.sub("", card, count=1).strip())


def _digest(card: str) -> str:
    # Whoever writes a text with line ends of Windows as text once more doubles their first half.
    text = re.sub(r"\r*\n", "\n", card).strip()
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:16]
