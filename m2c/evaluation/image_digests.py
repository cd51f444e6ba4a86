"""Hashes of images, so that features are found again by what a picture shows and not by where it lies."""

import hashlib
import json
import os
import sqlite3
from pathlib import Path

from tqdm.auto import tqdm

from m2c.data.benchmarks import Benchmark
from m2c.data.loading import undecoded


class ImageDigests:
    """SHA-256 of image files, remembered in a small database as long as a file's size and time stay what they were.

    Args:
        path: of the database; made if it does not exist.
    """

    def __init__(self, path: Path):
        path.parent.mkdir(parents=True, exist_ok=True)
        self.database = sqlite3.connect(path, timeout=60)
        self.database.execute("CREATE TABLE IF NOT EXISTS files (path TEXT PRIMARY KEY, size INT, time INT, digest TEXT)")

    def of_gallery(self, benchmark: Benchmark) -> list[str]:
        """One for each gallery image, in order; an image and its box make another one.

        Raises:
            ValueError: if a file cannot be read; the message names it.
        """
        gallery = undecoded(benchmark.gallery, {"image"})
        digests, size = [], 1000
        for start in tqdm(range(0, len(gallery), size), desc="hashing images", disable=len(gallery) <= size):
            rows = gallery[start : start + size]
            digests += [self._of(image, box) for image, box in zip(rows["image"], rows["box"])]
            self.database.commit()
        return digests

    def _of(self, image: dict, box: list[float]) -> str:
        digest = hashlib.sha256(image["bytes"]).hexdigest() if image["bytes"] is not None else self._of_file(image["path"])
        return f"{digest}{json.dumps(box)}" if box else digest

    def _of_file(self, path: str) -> str:
        path = os.path.abspath(path)
        try:
            status = os.stat(path)
            known = self.database.execute("SELECT size, time, digest FROM files WHERE path = ?", (path,)).fetchone()
            if known and known[:2] == (status.st_size, status.st_mtime_ns):
                return known[2]
            with open(path, "rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise ValueError(f"the image {path} cannot be read: {error}") from error
        entry = (path, status.st_size, status.st_mtime_ns, digest)
        self.database.execute("INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?)", entry)
        return digest
