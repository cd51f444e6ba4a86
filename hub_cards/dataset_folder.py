"""What a folder of data holds: triplets or pairs as an ImageFolder or in parquet files, or a benchmark."""

import glob
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from m2c.data.benchmarks import load_benchmark
from m2c.data.benchmarks.form import Benchmark

from .splits import METADATA, Split, read_image_folder_split, read_parquet_split


# Names of files that `datasets` and others write: a split, and the number of the part.
PARQUET = re.compile(r"(.+?)(-\d{5}(-of-\d{5})?)?\.parquet")


@dataclass(frozen=True)
class DatasetFolder:
    """A data set in one of the documented forms.

    Args:
        kind: `"triplets"`, `"pairs"`, `"images"` of any other columns, or `"benchmark"`.
        splits: by name, which is that of its folder or files in letters that `datasets` takes; none of a benchmark.
        benchmark: its queries and gallery.
        is_parquet: whether its images lie in parquet files.
    """

    kind: Literal["triplets", "pairs", "images", "benchmark"]
    splits: dict[str, Split]
    benchmark: Benchmark | None = None
    is_parquet: bool = False

    @property
    def rows(self) -> int:
        return len(self.benchmark.queries) if self.benchmark else sum(split.rows for split in self.splits.values())


def read_dataset_folder(folder: str | Path) -> DatasetFolder:
    """Reads a folder that [`m2c.data.image_folder.write_image_folder`] or [`m2c.data.benchmarks.write_benchmark`] wrote, or one
    with parquet files as `datasets` writes them, such as `train-00000-of-00002.parquet`, in it or in its folder `data`.

    Raises:
        ValueError: if it is of no such form, or something in it is damaged; the message names the file, and the line.
    """
    folder = Path(folder)
    if any((folder / name).is_file() for name in ("queries.jsonl", "queries.parquet")):
        (benchmark,) = load_benchmark("own", folder)
        return DatasetFolder("benchmark", {}, benchmark, (folder / "gallery.parquet").is_file())
    tables = _parquet_files(folder)
    splits = _parquet_splits(folder, tables) if tables else _image_folder_splits(folder)
    return DatasetFolder(_kind(set.union(*(split.images for split in splits.values()))), splits, is_parquet=bool(tables))


def _parquet_files(folder: Path) -> list[Path]:
    return sorted([*folder.glob("*.parquet"), *folder.glob("data/*.parquet")])


def _parquet_splits(folder: Path, paths: list[Path]) -> dict[str, Split]:
    parts = {}
    for path in paths:
        name, number, _ = PARQUET.fullmatch(path.name).groups()
        stem = glob.escape(path.relative_to(folder).with_name(name).as_posix())
        parts.setdefault((name, f"{stem}-*.parquet" if number else f"{stem}.parquet"), []).append(path)
    splits = {_split_name(name): read_parquet_split(files, pattern) for (name, pattern), files in parts.items()}
    if len(splits) < len(parts):
        names = ", ".join(str(path.relative_to(folder)) for path in paths)
        raise ValueError(f"parquet files of one split have different names or places in {folder}: {names}")
    return splits


def _image_folder_splits(folder: Path) -> dict[str, Split]:
    names = [""] if (folder / METADATA).is_file() else sorted(path.parent.name for path in folder.glob(f"*/{METADATA}"))
    if not names:
        raise ValueError(
            f"{folder} holds no data set: it has neither {METADATA}, nor folders with one, nor parquet files, nor queries.jsonl"
        )
    patterns = {name: glob.escape(f"{name}/" * bool(name)) + "**" for name in names}
    splits = {_split_name(name): read_image_folder_split(folder / name / METADATA, patterns[name]) for name in names}
    if len(splits) < len(names):
        raise ValueError(f"folders of {folder} differ in punctuation only, which names of splits cannot: {', '.join(names)}")
    return splits


def _split_name(folder: str) -> str:
    """`datasets` takes letters, digits and underscores."""
    return re.sub(r"\W+", "_", folder) or "train"


def _kind(images: set[str]) -> str:
    if {"reference", "target"} <= images:
        return "triplets"
    return "pairs" if images == {"image"} else "images"
