"""Shards of a data set, written on the spot: parquet files, or tar archives in the form of WebDataset."""

import io
import json
import tarfile
from pathlib import Path

from datasets import Dataset, Image


def rows_of(dataset: Dataset) -> list[dict]:
    """Rows with each image as its bytes."""
    for column, feature in dataset.features.items():
        if isinstance(feature, Image):
            dataset = dataset.cast_column(column, Image(decode=False))
    return [{name: value["bytes"] if isinstance(value, dict) else value for name, value in row.items()} for row in dataset]


def write_parquet(rows: Dataset, folder: Path, num_shards: int) -> Path:
    folder.mkdir()
    for index in range(num_shards):
        rows.shard(num_shards, index, contiguous=True).to_parquet(folder / f"train-{index:03d}.parquet")
    return folder


def write_tars(files: list[dict[str, str | bytes | dict]], folder: Path, num_shards: int) -> Path:
    """Each of `files` is a row: for each extension the content, JSON as a dictionary. Keys are `000000`, `000001` and so on."""
    folder.mkdir()
    per_shard = -(-len(files) // num_shards)
    for index in range(num_shards):
        with tarfile.open(folder / f"train-{index:03d}.tar", "w") as tar:
            for number in range(index * per_shard, min((index + 1) * per_shard, len(files))):
                for extension, content in files[number].items():
                    _add(tar, f"{number:06d}.{extension}", content)
    return folder


def _add(tar: tarfile.TarFile, name: str, content: str | bytes | dict) -> None:
    text = json.dumps(content) if isinstance(content, dict) else content
    data = text.encode() if isinstance(text, str) else text
    info = tarfile.TarInfo(name)
    info.size = len(data)
    tar.addfile(info, io.BytesIO(data))
