"""Texts in parquet files, which nobody sees from outside, as they are compressed."""

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq


TEXT_TYPES = {"ENUM", "JSON", "STRING"}


def texts_in_parquet(path: Path) -> Iterator[tuple[str, list[str]]]:
    """Columns with texts that stand in them, part by part. Names have dots where a column lies in another: `image.path`.

    Raises:
        ValueError: if the file is damaged.
    """
    try:
        file = pq.ParquetFile(path)
        leaves = [file.schema.column(index) for index in range(len(file.schema))]
        for name in [leaf.path for leaf in leaves if leaf.logical_type.type in TEXT_TYPES]:
            for batch in file.iter_batches(columns=[name]):
                yield name, list(_texts(batch.column(0)))
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"{path} is no complete parquet file ({error})") from error


def _texts(values: pa.Array) -> Iterator[str]:
    """Of an array whose only leaf holds texts."""
    if pa.types.is_struct(values.type):
        for field in values.flatten():
            yield from _texts(field)
    elif pa.types.is_nested(values.type):
        yield from _texts(values.flatten())
    else:
        yield from (text for text in values.to_pylist() if text)
