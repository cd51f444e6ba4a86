"""Small files that are there as a whole or not at all."""

from pathlib import Path


PARTIAL = ".partial"


def write_whole(path: Path, text: str) -> None:
    """Writes a text that replaces what `path` held when it is complete."""
    partial = path.with_suffix(PARTIAL)
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)
