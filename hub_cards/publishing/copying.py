"""Copies files of a folder for publishing, and refuses links, through which what lies elsewhere could be sent or changed."""

import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import suppress
from fnmatch import fnmatch
from pathlib import Path

from m2c.data import picture_files

from .sending import readable


# Nothing writes into these after they are staged.
LARGE = {".arrow", ".parquet", ".safetensors", *picture_files.SUFFIXES}


def files_of(folder: Path, skipped: tuple[str, ...]) -> list[Path]:
    """Files below a folder, by their paths in it.

    Args:
        folder: where to look.
        skipped: patterns for names of files and folders, at any depth, that are none of it.

    Raises:
        ValueError: if one of them is a link.
    """
    paths = list(_walk(folder, skipped))
    links = [path for path in paths if path.is_symlink()]
    if links:
        first, more = links[0].relative_to(folder), f", as are {len(links) - 1} more" if len(links) > 1 else ""
        raise ValueError(f"{first} in {folder} is a link{more}; publish a copy that holds the files, as `cp -rL` makes one")
    return [path.relative_to(folder) for path in paths]


def copy(paths: Iterable[Path], folder: Path, target: Path) -> None:
    """Copies files, by their paths in `folder`, into `target`."""
    for path in paths:
        (target / path).parent.mkdir(parents=True, exist_ok=True)
        _copy_file(folder / path, target / path)


def refuse_full_disk(target: Path, size: int) -> None:
    """Raises `ValueError` if there is no room for so many bytes in a temporary folder."""
    free = shutil.disk_usage(target).free
    if size > free:
        raise ValueError(
            f"{readable(size)} are to be written into {target.parent}, where {readable(free)} are free; set TMPDIR to a folder "
            "on a disk with more room. On that of what is published, most files need none"
        )


def size_of(paths: Iterable[Path], folder: Path, target: Path) -> int:
    """How many bytes [`copy`] will write: none for what gets a second name."""
    can_link = os.stat(folder).st_dev == os.stat(target).st_dev
    return sum((folder / path).stat().st_size for path in paths if not (can_link and path.suffix.lower() in LARGE))


def _walk(folder: Path, skipped: tuple[str, ...]) -> Iterator[Path]:
    for path in sorted(folder.iterdir()):
        if any(fnmatch(path.name, pattern) for pattern in skipped):
            continue
        if path.is_dir() and not path.is_symlink():
            yield from _walk(path, skipped)
        else:
            yield path


def _copy_file(path: Path, target: Path) -> None:
    """A second name for a large file is enough, where the file system can give it one."""
    if path.suffix.lower() in LARGE:
        with suppress(OSError):
            os.link(path, target)
            return
    shutil.copy2(path, target)
