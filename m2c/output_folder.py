"""Folders that appear when all in them is done."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def new_folder(output: Path) -> Iterator[Path]:
    """A folder inside `output` whose content moves to `output` when all went well, and vanishes otherwise.

    Raises:
        FileExistsError: if `output` exists and is not an empty folder.
    """
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise FileExistsError(f"{output} exists already; choose another folder, or remove it")
    is_new = not output.exists()
    output.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=".unfinished-", dir=output))
    try:
        yield partial
        for path in list(partial.iterdir()):
            path.rename(output / path.name)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        if is_new and not any(output.iterdir()):
            output.rmdir()
