"""What the rows of one split of a data set are: how many, which pictures, which texts."""

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from datasets import Features, Image

from m2c.data.benchmarks.files import check_bytes


METADATA = "metadata.jsonl"
IMAGE = "file_name"


@dataclass
class Split:
    """Rows of one `metadata.jsonl`, or of parquet files.

    Args:
        pattern: by which `datasets` finds its files in the folder of the data set.
        rows: how many.
        images: columns of images, as `datasets` names them.
        blank: how many rows have nothing in a column of texts, for each.
    """

    pattern: str
    rows: int = 0
    images: set[str] = field(default_factory=set)
    blank: dict[str, int] = field(default_factory=dict)


def read_image_folder_split(path: Path, pattern: str) -> Split:
    """Of a `metadata.jsonl`. Raises `ValueError` if a line of it is damaged."""
    split = Split(pattern)
    with open(path, "rb") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                row = dict(json.loads(line))
            except (ValueError, TypeError, RecursionError) as error:
                raise ValueError(f"line {number} of {path} is no object of JSON ({error})") from error
            split.rows += 1
            for key, value in row.items():
                if key == IMAGE or key.endswith(f"_{IMAGE}"):
                    split.images.add("image" if key == IMAGE else key.removesuffix(f"_{IMAGE}"))
                elif value is None or isinstance(value, str):
                    split.blank[key] = split.blank.get(key, 0) + (not (value or "").strip())
    return split


def read_parquet_split(paths: Iterable[Path], pattern: str) -> Split:
    """Of parquet files as `datasets` writes them. Raises `ValueError` if one of them or of the pictures in them is damaged, or
    one has no pictures in it."""
    split = Split(pattern)
    for path in paths:
        try:
            _add_parquet(split, path)
        except (pa.ArrowException, OSError) as error:
            raise ValueError(f"{path} is no complete parquet file ({error})") from error
    return split


def _add_parquet(split: Split, path: Path) -> None:
    file = pq.ParquetFile(path)
    columns = Features.from_arrow_schema(file.schema_arrow)
    images = {name for name, column in columns.items() if isinstance(column, Image)}
    texts = [name for name, column in columns.items() if getattr(column, "dtype", None) in ("string", "large_string")]
    if not images:
        raise ValueError(f"{path} has no column of images that `datasets` knows as such")
    split.rows += file.metadata.num_rows
    split.images |= images
    for name in texts:
        for batch in file.iter_batches(columns=[name]):
            words = pc.utf8_trim_whitespace(pc.fill_null(batch.column(0).cast(pa.large_string()), ""))
            split.blank[name] = split.blank.get(name, 0) + pc.sum(pc.equal(words, "")).as_py()
    for name in sorted(images):
        parts = [_look_at(batch.column(0)) for batch in file.iter_batches(batch_size=100, columns=[name])]
        if missing := sum(missing for missing, _ in parts):
            raise ValueError(
                f"{path} names {missing} pictures of column {name!r} that it does not hold; write the data set with "
                "save_to_disk instead, which takes them in"
            )
        if reasons := [reason for _, reasons in parts for reason in reasons]:
            raise ValueError(
                f"{path} holds {len(reasons)} pictures of column {name!r} that cannot be read; of the first one: {reasons[0]}"
            )


def _look_at(pictures: pa.StructArray) -> tuple[int, list[str]]:
    """How many pictures have no bytes, and what is wrong with those that have."""
    held = [picture["bytes"] for picture in pictures.to_pylist() if picture is not None]
    reasons = [check_bytes(data) for data in held if data is not None]
    return held.count(None), [reason for reason in reasons if reason]
