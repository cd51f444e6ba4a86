"""What a folder of data holds: triplets or pairs as an ImageFolder, or a benchmark."""

import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from m2c.data.benchmarks import load_benchmark
from m2c.data.benchmarks.form import Benchmark


METADATA = "metadata.jsonl"
IMAGE = "file_name"


@dataclass
class Split:
    """Rows of one `metadata.jsonl`.

    Args:
        folder: of the split, below that of the data set; empty where there is one split only.
        rows: how many.
        images: columns of images, as `datasets` names them.
        blank: how many rows have nothing in a column of texts, for each.
    """

    folder: str
    rows: int = 0
    images: set[str] = field(default_factory=set)
    blank: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class DatasetFolder:
    """A data set in one of the documented forms.

    Args:
        kind: `"triplets"`, `"pairs"`, `"images"` of any other columns, or `"benchmark"`.
        splits: by name, which is that of its folder in letters that `datasets` takes; none of a benchmark.
        benchmark: its queries and gallery.
        is_parquet: whether its images lie in a parquet file.
    """

    kind: Literal["triplets", "pairs", "images", "benchmark"]
    splits: dict[str, Split]
    benchmark: Benchmark | None = None
    is_parquet: bool = False

    @property
    def rows(self) -> int:
        return len(self.benchmark.queries) if self.benchmark else sum(split.rows for split in self.splits.values())


def read_dataset_folder(folder: str | Path) -> DatasetFolder:
    """Reads a folder that [`m2c.data.image_folder.write_image_folder`] or [`m2c.data.benchmarks.write_benchmark`] wrote.

    Raises:
        ValueError: if it is of neither form, or a line of it is damaged; the message names the line.
    """
    folder = Path(folder)
    if any((folder / name).is_file() for name in ("queries.jsonl", "queries.parquet")):
        (benchmark,) = load_benchmark("own", folder)
        return DatasetFolder("benchmark", {}, benchmark, (folder / "gallery.parquet").is_file())
    names = [""] if (folder / METADATA).is_file() else sorted(path.parent.name for path in folder.glob(f"*/{METADATA}"))
    if not names:
        raise ValueError(f"{folder} holds no data set: it has neither {METADATA}, nor folders with one, nor queries.jsonl")
    splits = {_split_name(name): _read_split(folder, name) for name in names}
    if len(splits) < len(names):
        raise ValueError(f"folders of {folder} differ in punctuation only, which names of splits cannot: {', '.join(names)}")
    return DatasetFolder(_kind(set.union(*(split.images for split in splits.values()))), splits)


def _split_name(folder: str) -> str:
    """`datasets` takes letters, digits and underscores."""
    return re.sub(r"\W+", "_", folder) or "train"


def _kind(images: set[str]) -> str:
    if {"reference", "target"} <= images:
        return "triplets"
    return "pairs" if images == {"image"} else "images"


def _read_split(root: Path, name: str) -> Split:
    split, path = Split(name), root / name / METADATA
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
