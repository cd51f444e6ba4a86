"""Folders that appear when all in them is done."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


UNFINISHED = ".unfinished-"


def refuse_existing(output: Path) -> None:
    """Raises `FileExistsError` if `output` exists and holds anything but what a killed run left unfinished."""
    if output.exists() and (not output.is_dir() or any(not path.name.startswith(UNFINISHED) for path in output.iterdir())):
        raise FileExistsError(f"{output} exists already; choose another folder, or remove it")


@contextmanager
def new_folder(output: Path) -> Iterator[Path]:
    """A folder inside `output` whose content moves to `output` when all went well, and vanishes otherwise.

    Raises:
        FileExistsError: if `output` exists and is not an empty folder.
    """
    refuse_existing(output)
    is_new = not output.exists()
    output.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=UNFINISHED, dir=output))
    try:
        yield partial
        for path in list(partial.iterdir()):
            path.rename(output / path.name)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        if is_new and not any(output.iterdir()):
            output.rmdir()
