"""Hashes of images, so that features are found again by what a picture shows and not by where it lies."""

import hashlib
import json
import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tqdm.auto import tqdm

from m2c.data.benchmarks import Benchmark
from m2c.data.loading import undecoded


class ImageDigests:
    """SHA-256 of image files, remembered in a small database as long as a file's size and time stay what they were.

    Args:
        path: of the database; made if it does not exist.

    Raises:
        OSError: if the database cannot be opened or written; so do all methods.
    """

    def __init__(self, path: Path):
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        with self._named_errors():
            self.database = sqlite3.connect(path, timeout=60)
            self.database.execute("CREATE TABLE IF NOT EXISTS files (path TEXT PRIMARY KEY, size INT, time INT, digest TEXT)")

    def of_gallery(self, benchmark: Benchmark) -> list[str]:
        """One for each gallery image, in order; an image and its box make another one.

        Raises:
            ValueError: if a file cannot be read; the message names it.
        """
        gallery = undecoded(benchmark.gallery, {"image"})

        def read(part: slice) -> Iterator[tuple[dict, list[float]]]:
            rows = gallery[part]
            return zip(rows["image"], rows["box"])

        return self._of_parts(len(gallery), read)

    def of_files(self, paths: Sequence[Path]) -> list[str]:
        """One for each file, in order, as it has in a gallery without boxes.

        Raises:
            ValueError: if a file cannot be read; the message names it.
        """
        return self._of_parts(len(paths), lambda part: [({"bytes": None, "path": path}, []) for path in paths[part]])

    def _of_parts(self, length: int, read: Callable[[slice], Iterable[tuple[dict, list[float]]]]) -> list[str]:
        digests, size = [], 1000
        for start in tqdm(range(0, length, size), desc="hashing images", disable=length <= size):
            new = {}
            digests += [self._of(image, box, new) for image, box in read(slice(start, start + size))]
            # All at once, as others cannot write meanwhile.
            with self._named_errors(), self.database:
                self.database.executemany("INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?)", new.values())
        return digests

    def _of(self, image: dict, box: list[float], new: dict[str, tuple]) -> str:
        if image["bytes"] is not None:
            digest = hashlib.sha256(image["bytes"]).hexdigest()
        else:
            digest = self._of_file(os.path.abspath(image["path"]), new)
        return f"{digest}{json.dumps(box)}" if box else digest

    def _of_file(self, path: str, new: dict[str, tuple]) -> str:
        """The digest of a file; one that the database does not know joins `new`, by path."""
        with self._named_errors():
            query = "SELECT path, size, time, digest FROM files WHERE path = ?"
            known = new.get(path) or self.database.execute(query, (path,)).fetchone()
        try:
            status = os.stat(path)
            current = (status.st_size, status.st_mtime_ns)
            if known and known[1:3] == current:
                return known[3]
            with open(path, "rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise ValueError(f"the image {path} cannot be read: {error}") from error
        new[path] = (path, *current, digest)
        return digest

    @contextmanager
    def _named_errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise OSError(f"{self.path} cannot be used: {error}; remove it, or choose another --cache_dir") from error
