"""Features of a data set on disk: files of some hundred rows, mapped into memory when they are read."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file

from m2c.feature_files import write_features
from m2c.whole_files import PARTIAL


ROWS_PER_SHARD = 512


class Shard(NamedTuple):
    """Consecutive rows of the data set in one of its views."""

    view: int
    number: int


def parts_of(num_rows: int) -> list[range]:
    """The rows of each shard."""
    return [range(start, min(start + ROWS_PER_SHARD, num_rows)) for start in range(0, num_rows, ROWS_PER_SHARD)]


class FeatureShards:
    """The shards of one data set: safetensors files, `view0-00003.safetensors` for one.

    Args:
        folder: of the files.
        num_rows: of the data set.
        num_views: how often each row is there.
        digests: of the rows of each shard, which are put into its name, `view0-00003-<digest>.safetensors`. So data sets can
            share the folder, and a row that changes costs its shard. Without them, the folder is of rows that never change.
    """

    def __init__(self, folder: Path, num_rows: int, num_views: int, digests: Sequence[str] | None = None):
        self.folder, self.num_rows, self.num_views = folder, num_rows, num_views
        self._parts, self._digests = parts_of(num_rows), digests

    def _of_view(self, view: int) -> list[Shard]:
        return [Shard(view, number) for number in range(len(self._parts))]

    def rows(self, shard: Shard) -> range:
        return self._parts[shard.number]

    def missing(self) -> list[Shard]:
        """Those that are not there, or not whole, in order."""
        return [shard for view in range(self.num_views) for shard in self._of_view(view) if not self._is_whole(shard)]

    def _is_whole(self, shard: Shard) -> bool:
        try:
            with safe_open(self._path(shard), "pt") as file:  # reads the header, which says how long the file must be
                return {file.get_slice(name).get_shape()[0] for name in file.keys()} == {len(self.rows(shard))}
        except (SafetensorError, FileNotFoundError):
            return False

    def write(self, shard: Shard, features: dict[str, torch.Tensor]) -> None:
        """Raises `OSError` if it cannot be written; nothing is left of this shard then, and the others stay."""
        write_features(self._path(shard), features)

    def remove_leftovers(self) -> None:
        """Removes what a killed run was about to write."""
        for path in self.folder.glob(f"*{PARTIAL}"):
            path.unlink()

    def open(self) -> None:
        """Maps all shards into memory. Raises `FileNotFoundError` if one is missing."""
        self._mapped = [[load_file(self._path(shard)) for shard in self._of_view(view)] for view in range(self.num_views)]

    def read(self, view: int, indices: list[int]) -> dict[str, torch.Tensor]:
        """Features of rows in one view, as stored, each of shape `(len(indices), ...)`; nothing else is read from the disk."""
        shards = self._mapped[view]
        places = [divmod(index, ROWS_PER_SHARD) for index in indices]
        return {name: torch.stack([shards[shard][name][row] for shard, row in places]) for name in shards[0]}

    def _path(self, shard: Shard) -> Path:
        digest = "" if self._digests is None else f"-{self._digests[shard.number]}"
        return self.folder / f"view{shard.view}-{shard.number:05d}{digest}.safetensors"
