"""Keeps out of what is published what belongs to one machine."""

import re
from pathlib import PurePosixPath, PureWindowsPath


# A path from the root or the home folder at the beginning of a word, of at least two parts without spaces or quotes.
_INSIDE_TEXT = re.compile(
    r"""(?<![^\s"'`=(,:|])(?:file://)?(?!//)(?:~|[A-Za-z]:)?[/\\](?:[^\s"'`/\\|,)]+[/\\])+[^\s"'`/\\|,)]*"""
)


def publishable(value):
    """A value of JSON in which every absolute path has shrunk to its last part, as where things lie is nobody's business.

    Halves of surrogate pairs, which names of files may hold and UTF-8 cannot, become question marks.
    """
    if isinstance(value, dict):
        return {publishable(key): publishable(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [publishable(entry) for entry in value]
    if not isinstance(value, str):
        return value
    value = value.encode("utf-8", "replace").decode("utf-8")
    return _last_part(value) if _is_path(value) else _INSIDE_TEXT.sub(_shrunk, value)


def _is_path(text: str) -> bool:
    is_absolute = PurePosixPath(text).is_absolute() or PureWindowsPath(text).is_absolute() or text.startswith(("~/", "~\\"))
    # A slash alone, or one with signs, is a word of a tokenizer.
    return is_absolute and re.search(r"\w\w", text) is not None


def _shrunk(found: re.Match) -> str:
    return _last_part(found[0]) if re.search(r"\w\w", found[0]) else found[0]


def _last_part(path: str) -> str:
    return re.split(r"[/\\]", path.rstrip("/\\"))[-1]
