"""What to do when a file of a run cannot be written."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def naming_file(path: Path) -> Iterator[None]:
    """Raises `OSError`, which names the file and the remedy, if what is done in here raises one."""
    try:
        yield
    except OSError as error:
        raise OSError(
            f"{path} could not be written ({error.strerror or error}). Make room there, and go on with --resume"
        ) from error
