"""Captions and edits: kept on disk, found again by what they were made from, and shared."""

from .exchange import export_texts, import_texts
from .other_revisions import say_other_revisions
from .sharing import share
from .store import FILE_NAME, TextStore
from .text import ADDED_OBJECTS, CAPTION, EDITED_CAPTION, KINDS, Text, text_key


__all__ = [
    "ADDED_OBJECTS",
    "CAPTION",
    "EDITED_CAPTION",
    "FILE_NAME",
    "KINDS",
    "Text",
    "TextStore",
    "export_texts",
    "import_texts",
    "say_other_revisions",
    "share",
    "text_key",
]
