"""Texts as a file that anyone can read, publish, and take into a store of their own: parquet, or JSON lines."""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from uuid import uuid4

import pyarrow as pa
import pyarrow.parquet as pq

from m2c.whole_files import PARTIAL, whole_file

from .store import TextStore
from .text import ADDED_OBJECTS, KINDS, Text, canonical


# What a text is imported from. Generator and source are JSON, as every model has settings of its own.
NEEDED = ("key", "kind", "text", "generator", "source")
SCHEMA = pa.schema([(name, pa.string()) for name in ("key", "kind", "model", "file_name", "text", "generator", "source")])
ROWS_AT_ONCE = 10_000


def export_texts(
    store: TextStore, path: Path, kind: str | None = None, model: str | None = None, images: Mapping[str, str] | None = None
) -> int:
    """Writes texts to a file, which appears when it is complete, with the columns of `SCHEMA`.

    Args:
        store: whose texts they are.
        path: of the file; `.parquet`, or `.jsonl` for JSON lines.
        kind: only texts of this kind.
        model: only texts of the model with this public name.
        images: only captions of the images with these digests, with file names for the column `file_name`.

    Returns:
        The number of texts.

    Raises:
        ValueError: if there are no such texts, or the file is of another format.
        FileExistsError: if the file exists.
        OSError: if it cannot be written.
    """
    write = _format(path, {".parquet": _write_parquet, ".jsonl": _write_lines})
    if path.exists():
        raise FileExistsError(f"{path} exists already; choose another file, or remove it")
    rows = (_row(text, images) for text in store.all(kind, model) if images is None or text.source.get("image") in images)
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path, f".{uuid4().hex}{PARTIAL}") as partial:
        count = write(partial, rows)
        if count == 0:
            raise ValueError(f"there are no such texts in {store.path}")
    return count


def import_texts(store: TextStore, path: Path) -> tuple[int, int]:
    """Adds the texts of a file that [`export_texts`] wrote; other columns than `NEEDED` are left aside.

    Returns:
        How many texts are new, and how many were known, which stay what they are.

    Raises:
        ValueError: if the file is damaged, lacks a column, or has a text that is not that of its key; nothing is added then.
        OSError: if the file cannot be read, or the store not be written.
    """
    read, count = _format(path, {".parquet": _read_parquet, ".jsonl": _read_lines}), 0
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")

    def texts() -> Iterator[Text]:
        nonlocal count
        for count, row in enumerate(read(path), 1):
            yield _text(row, f"row {count} of {path}")

    new = store.add(texts())
    return new, count - new


def _format(path: Path, formats: dict[str, Callable]) -> Callable:
    if path.suffix not in formats:
        raise ValueError(f"the format of {path} is not known by its name; it has to end in {' or '.join(formats)}")
    return formats[path.suffix]


def _row(text: Text, images: Mapping[str, str] | None) -> dict[str, str | None]:
    return {
        "key": text.key,
        "kind": text.kind,
        "model": text.generator["model"],
        "file_name": images and images[text.source["image"]],
        "text": text.text,
        "generator": canonical(text.generator),
        "source": canonical(text.source),
    }


def _text(row: dict, place: str) -> Text:
    if missing := [name for name in NEEDED if not isinstance(row.get(name), str)]:
        raise ValueError(f"{place} has no text in {', '.join(missing)}; nothing was imported")
    try:
        text = Text(row["kind"], json.loads(row["generator"]), json.loads(row["source"]), row["text"])
        has_form = text.kind in KINDS and isinstance(text.generator["model"], str) and isinstance(text.source, dict)
        is_its_key = text.key == row["key"]
    except (ValueError, RecursionError, LookupError, TypeError) as error:
        raise ValueError(f"{place} is damaged ({type(error).__name__}: {error}); nothing was imported") from error
    if not (has_form and is_its_key):
        raise ValueError(f"{place} is damaged: its key is not that of its kind, generator and source; nothing was imported")
    # Of what is new, nothing may be.
    if text.kind != ADDED_OBJECTS and not text.text.strip():
        raise ValueError(f"{place} has an empty {text.kind}; nothing was imported")
    return text


def _write_parquet(path: Path, rows: Iterator[dict]) -> int:
    count = 0
    with pq.ParquetWriter(path, SCHEMA) as writer:
        while batch := list(islice(rows, ROWS_AT_ONCE)):
            writer.write_table(pa.Table.from_pylist(batch, SCHEMA))
            count += len(batch)
    return count


def _write_lines(path: Path, rows: Iterator[dict]) -> int:
    count = 0
    with open(path, "w", encoding="utf-8") as file:
        for row in rows:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
            count += 1
    return count


def _read_parquet(path: Path) -> Iterator[dict]:
    with _damage(path), pq.ParquetFile(path) as file:
        if missing := [name for name in NEEDED if name not in file.schema_arrow.names]:
            raise ValueError(f"there is no column {', '.join(missing)}")
        for batch in file.iter_batches(ROWS_AT_ONCE, columns=list(NEEDED)):
            yield from batch.to_pylist()


def _read_lines(path: Path) -> Iterator[dict]:
    with _damage(path), open(path, encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            row = json.loads(line)
            if not isinstance(row, dict):
                raise ValueError(f"line {number} is no object")
            yield row


@contextmanager
def _damage(path: Path) -> Iterator[None]:
    """What is wrong with a file's format, as a `ValueError` that names the file."""
    try:
        yield
    except (ValueError, OSError, RecursionError, pa.ArrowException) as error:
        raise ValueError(f"{path} is damaged ({error}); nothing was imported") from error
