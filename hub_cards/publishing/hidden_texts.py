"""Texts in parquet and safetensors files, which nobody sees from outside."""

import re
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from safetensors import SafetensorError, safe_open


METADATA = "its metadata"
TEXT_TYPES = {"ENUM", "JSON", "STRING"}
# Columns with names of files; in all others people may have written.
NAMES_OF_FILES = re.compile(r"(^|[._])(path|file_names?)$")
# At once: of texts, and of bytes, which may be pictures.
TEXT_ROWS, BYTES_ROWS = 10_000, 100


def hidden_texts(path: Path) -> Iterator[tuple[str, list[str | bytes]]]:
    """What stands in a file, part by part, with the place of each: `"column image.path"`, with dots where a column lies in
    another, or `"its metadata"`. Of tensors there are no values.

    Raises:
        ValueError: if the file is damaged.
    """
    read = {".parquet": _in_parquet, ".safetensors": _in_safetensors}[path.suffix.lower()]
    try:
        yield from read(path)
    except (pa.ArrowException, SafetensorError, OSError) as error:
        raise ValueError(f"{path} is not complete ({error})") from error


def holds_words(place: str) -> bool:
    """Whether in a place of [`hidden_texts`] there may be what people wrote; elsewhere a path is nothing but a path."""
    return place != METADATA and not NAMES_OF_FILES.search(place.removeprefix("column "))


def _in_safetensors(path: Path) -> Iterator[tuple[str, list[str]]]:
    with safe_open(path, framework="numpy") as file:
        yield METADATA, _pairs(file.metadata())


def _in_parquet(path: Path) -> Iterator[tuple[str, list[str | bytes]]]:
    file = pq.ParquetFile(path)
    yield METADATA, _pairs(file.schema_arrow.metadata)
    for leaf in (file.schema.column(index) for index in range(len(file.schema))):
        is_text, is_bytes = leaf.logical_type.type in TEXT_TYPES, leaf.logical_type.type == "NONE"
        if leaf.physical_type == "BYTE_ARRAY" and (is_text or is_bytes):
            for batch in file.iter_batches(TEXT_ROWS if is_text else BYTES_ROWS, columns=[leaf.path]):
                yield f"column {leaf.path}", list(_texts(batch.column(0)))


def _pairs(metadata: dict | None) -> list[str | bytes]:
    return [text for pair in (metadata or {}).items() for text in pair]


def _texts(values: pa.Array) -> Iterator[str | bytes]:
    """Of an array whose only leaf holds texts."""
    if pa.types.is_struct(values.type):
        for field in values.flatten():
            yield from _texts(field)
    elif pa.types.is_nested(values.type):
        yield from _texts(values.flatten())
    else:
        yield from (text for text in values.to_pylist() if text)
