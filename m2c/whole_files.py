"""Files that are there as a whole or not at all."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


PARTIAL = ".partial"


@contextmanager
def whole_file(path: Path, suffix: str = PARTIAL) -> Iterator[Path]:
    """A path to write to. What is there at the end replaces what `path` held, be it a link; after an error nothing is left.

    Args:
        path: of the file.
        suffix: takes the place of that of `path` meanwhile, and ends in `.partial`; one that nobody else has where several
            processes write the same file.
    """
    partial = path.with_suffix(suffix)
    try:
        yield partial
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def write_whole(path: Path, text: str) -> None:
    """Writes a text that replaces what `path` held, be it a link, when it is complete."""
    with whole_file(path) as partial:
        partial.write_text(text, encoding="utf-8")
