"""Makes the folder that is sent to the Hub of a data set."""

import json
import os
import tempfile
from pathlib import Path

import pyarrow.parquet as pq
from datasets import Dataset, DatasetDict, load_dataset, load_from_disk
from datasets.table import embed_table_storage

from hub_cards.dataset_card import write_dataset_card
from hub_cards.dataset_folder import DatasetFolder, read_dataset_folder
from hub_cards.splits import IMAGE, METADATA
from m2c.data.benchmarks.files import check_images

from .copying import copy, files_of, refuse_full_disk, size_of
from .sending import MOST_FILES


# Of file managers, git and the Hub's client; nothing else in a data set is left out.
HIDDEN = (".*",)
SAVED_TO_DISK = ("dataset_info.json", "dataset_dict.json")
# What the Hub recommends, in bytes, and few enough rows to be held in memory at once.
PART = 500_000_000
ROW_GROUP = 100


def stage_dataset(folder: Path, target: Path, repo_id: str, licence: str | None, source: str | None) -> dict[str, int]:
    """Writes into `target` what is to be published of a data set, with its card.

    What `save_to_disk` wrote, and an ImageFolder of more files than the Hub takes at once, becomes parquet files that hold
    their pictures; anything else goes as it is.

    Returns:
        How many rows there are to read in each split; nothing of a benchmark.

    Raises:
        ValueError: if the folder holds no data set in a documented form, or links, or some of its pictures are missing or
            damaged; or the disk is full.
    """
    paths = files_of(folder, HIDDEN)
    if any((folder / name).is_file() for name in SAVED_TO_DISK):
        rows = load_from_disk(str(folder))
        splits = rows if isinstance(rows, DatasetDict) else {"train": rows}
        counts = {name: len(split) for name, split in splits.items()}
        _write_parquet(splits, paths, folder, target)
    else:
        data = read_dataset_folder(folder)
        counts = {name: split.rows for name, split in data.splits.items()}
        _refuse_unusable(folder, paths)
        if len(paths) >= MOST_FILES and data.splits and not data.is_parquet:
            with tempfile.TemporaryDirectory() as cache:
                _write_parquet(_load_image_folder(folder, data, cache), paths, folder, target)
        else:
            refuse_full_disk(target, size_of(paths, folder, target))
            copy(paths, folder, target)
    write_dataset_card(target, repo_id, licence, source)
    return counts


def _load_image_folder(folder: Path, data: DatasetFolder, cache: str) -> dict[str, Dataset]:
    arguments = {"data_dir": str(folder), "split": "train", "cache_dir": cache}
    return {
        name: load_dataset("imagefolder", data_files={"train": split.pattern}, **arguments)
        for name, split in data.splits.items()
    }


def _write_parquet(splits: dict[str, Dataset], paths: list[Path], folder: Path, target: Path) -> None:
    size = sum((folder / path).stat().st_size for path in paths)
    refuse_full_disk(target, size)
    (target / "data").mkdir()
    for name, rows in splits.items():
        parts = max(1, min(1 + size // PART, len(rows)))
        for index in range(parts):
            part = rows.shard(parts, index, contiguous=True).with_format("arrow")
            path = target / "data" / f"{name}-{index:05d}-of-{parts:05d}.parquet"
            with pq.ParquetWriter(path, rows.features.arrow_schema) as writer:
                for table in part.iter(ROW_GROUP):
                    # Files become bytes.
                    writer.write_table(embed_table_storage(table))


def _refuse_unusable(folder: Path, paths: list[Path]) -> None:
    """Raises `ValueError` if a picture that a `metadata.jsonl` names is not among the files, or damaged."""
    named = {name: None for path in paths if path.name == METADATA for name in _pictures(folder, path)}
    files = {path.as_posix() for path in paths}
    if missing := [name for name in named if name not in files]:
        raise ValueError(
            f"{len(missing)} of the pictures of {folder} are not there, hidden, or elsewhere, such as {missing[0]}; put them "
            "where their names say, or remove their rows"
        )
    if problems := check_images([str(folder / name) for name in named]):
        (path, reason), *_ = problems.items()
        raise ValueError(
            f"{len(problems)} of the pictures of {folder} cannot be read, such as {path} ({reason}); repair them, or remove "
            "their rows"
        )


def _pictures(folder: Path, metadata: Path) -> list[str]:
    """What a `metadata.jsonl` names, as paths below the folder."""
    rows = [json.loads(line) for line in (folder / metadata).read_text(encoding="utf-8").split("\n") if line.strip()]
    columns = {column for row in rows for column in row if column == IMAGE or column.endswith(f"_{IMAGE}")}
    names = [row[column] for row in rows for column in sorted(columns) if row.get(column)]
    return [Path(os.path.normpath(metadata.parent / name)).as_posix() for name in names]
