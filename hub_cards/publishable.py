"""Keeps out of what is published what belongs to one machine."""

import os
import re
from collections.abc import Iterator
from pathlib import PurePosixPath, PureWindowsPath


# A path from the root or the home folder at the beginning of a word, of at least two parts without spaces or quotes; or a URL,
# in which slashes say nothing of this machine.
_INSIDE_TEXT = re.compile(
    r"""(?P<url>\b(?!file:)[A-Za-z][A-Za-z0-9+.-]+://[^\s"'`<>|)]*)|"""
    r"""(?<![^\s"'`=(,:|])(?:file://)?(?!//)(?:~|[A-Za-z]:|\\)?[/\\](?:[^\s"'`/\\|,)]+[/\\])+[^\s"'`/\\|,)]*"""
)
# Folders below the root in which people keep what is theirs, on machines of all kinds.
_ROOTS = re.compile("content|data|home|kaggle|media|mnt|opt|root|scratch|srv|tmp|users|var|volumes", re.IGNORECASE)


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


def names_path(text: str) -> bool:
    """Whether a text is, or holds, an absolute path, of whatever folders: for files in which slashes mean nothing else."""
    return any(True for _ in _paths_in(text))


def names_path_of_machine(text: str) -> bool:
    """Whether a text is, or holds, an absolute path below a folder that is there on this machine, or on most: for texts that
    people wrote, as `"a /b/c"` is one, or `"w/ 3/4 sleeve /top"`."""
    return any(map(_is_of_machine, _paths_in(text)))


def _paths_in(text: str) -> Iterator[str]:
    if _is_path(text):
        yield text
    else:
        yield from (found[0] for found in _INSIDE_TEXT.finditer(text) if _is_path_inside(found))


def _is_of_machine(path: str) -> bool:
    path = path.removeprefix("file://")
    if re.match(r"~|\\\\|[A-Za-z]:\\", path):
        return True
    # One backslash alone begins a command of TeX. Windows takes slashes too.
    root, _, below = re.sub("^[A-Za-z]:", "", path).lstrip("/").partition("/")
    return path[0] != "\\" and bool(below) and bool(_ROOTS.fullmatch(root) or os.path.exists(f"/{root}"))


def _is_path(text: str) -> bool:
    is_absolute = PurePosixPath(text).is_absolute() or PureWindowsPath(text).is_absolute() or text.startswith(("~/", "~\\"))
    # A slash alone, or one with signs, is a word of a tokenizer.
    return is_absolute and _has_name(text)


def _is_path_inside(found: re.Match) -> bool:
    return not found["url"] and _has_name(found[0])


def _has_name(path: str) -> bool:
    return re.search(r"\w\w", path) is not None


def _shrunk(found: re.Match) -> str:
    return _last_part(found[0]) if _is_path_inside(found) else found[0]


def _last_part(path: str) -> str:
    return re.split(r"[/\\]", path.rstrip("/\\"))[-1]
