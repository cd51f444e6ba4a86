"""Training data from the Hub or local files, with an index or as a stream; and their images, opened with care."""

import glob
import io
import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from datasets import Dataset, Features, Image, IterableDataset, Value, load_dataset, load_from_disk
from PIL.Image import Image as Picture

from processing_m2c.images import open_image


# Column that names a row of a stream in messages; its number there would help nobody to find it.
ROW_NAME = "row_name"
# Files that can be named themselves, instead of their folder.
FORMATS = {".tar": "webdataset", ".parquet": "parquet", ".txt": "text"}


def load_rows(name: str, columns: dict[str, str], image_columns: set[str], config: str | None, split: str) -> Dataset:
    """One split of a data set, with its columns renamed to the ones that training uses.

    Args:
        name: a repository of the Hub, a local folder (ImageFolder, parquet, WebDataset shards, ...), one that `save_to_disk`
            wrote, or the path or URL of `.parquet`, `.tar` or `.txt` files, with wildcards; of these last each line is a row,
            in the column `text`.
        columns: for each column that is needed, its name in the data set. A text may also be a field of a column that holds
            JSON: `json.caption`.
        image_columns: which of them hold images (or paths of images); they stay undecoded until [`read_image`].
        config: configuration of the data set.
        split: split of the data set.

    Raises:
        ValueError: if there is no such data set, split or column, or no row; the message lists what there is.
    """
    dataset = _load(name, config, split)
    places = _find_columns(name, dataset.features, columns, image_columns)
    if len(dataset) == 0:
        raise ValueError(f"the data set {name} has no rows in its split {split}")
    # Two texts may share a column: the modification text can serve as the caption, for want of a better one.
    given = [place[0] for place in places.values()]
    names = {place[0]: wanted for wanted, place in places.items() if len(place) == 1 and given.count(place[0]) == 1}
    for wanted, (column, *fields) in places.items():
        if wanted not in names.values():
            texts = [_value(value, fields) for value in dataset[column][:]]
            dataset = dataset.add_column(f"_{wanted}", texts, feature=Value("string"))
            names[f"_{wanted}"] = wanted
    return undecoded(dataset.select_columns(list(names)).rename_columns(names), image_columns)


def load_stream(name: str, columns: dict[str, str], image_columns: set[str], config: str | None, split: str) -> IterableDataset:
    """As [`load_rows`], but nothing is downloaded or indexed: rows are read with [`each_row`], in the order of the files.

    Rows have one more column, `row_name`: key and shard of WebDataset, else the beginning of the first text.

    Raises:
        ValueError: as [`load_rows`] does, and if the data set is not one that can be streamed, or breaks off.
    """
    stream = _load(name, config, split, streaming=True)
    if stream.features is None:
        raise ValueError(
            f"the data set {name} does not say ahead which columns it has, as parquet and WebDataset do; leave out --streaming"
        )
    places = _find_columns(name, stream.features, columns, image_columns)
    origin = {"__key__", "__url__"} & set(stream.features)
    stream = stream.select_columns(sorted(origin | {place[0] for place in places.values()}))
    stream = undecoded(stream, {places[column][0] for column in image_columns})
    texts = [column for column in columns if column not in image_columns]
    features = {wanted: Image(decode=False) if wanted in image_columns else Value("string") for wanted in columns}
    stream = stream.map(
        partial(_training_row, places=places, first_text=texts[0]),
        remove_columns=stream.column_names,
        features=Features({**features, ROW_NAME: Value("string")}),
    )
    if next(each_row(stream), None) is None:
        raise ValueError(f"the data set {name} has no rows in its split {split}")
    return stream


def each_row(stream: IterableDataset) -> Iterator[dict]:
    """All rows of a stream, also in a worker of a data loader.

    Raises:
        ValueError: if it breaks off.
    """
    try:
        # Iterated plainly, it would deal its shards out to the workers.
        for row in stream.iter(batch_size=1):
            yield {column: values[0] for column, values in row.items()}
    except Exception as error:
        raise ValueError(f"the stream of rows broke off ({_in_one_line(error)}); check files and network") from error


def undecoded(dataset: Dataset | IterableDataset, image_columns: set[str]) -> Dataset | IterableDataset:
    """The data set with its images as bytes or paths, for [`read_image`]."""
    for column in image_columns:
        dataset = dataset.cast_column(column, Image(decode=False))
    return dataset


def read_image(row: dict, column: str, index: int | str) -> Picture:
    """The image of one row as upright RGB.

    Raises:
        ValueError: if it cannot be read; the message names row, column and file.
    """
    image = row[column]
    try:
        if image is None:
            raise ValueError("there is no image")
        if image["bytes"] is None:
            return open_image(Path(image["path"]))
        return open_image(io.BytesIO(image["bytes"]))
    except ValueError as error:
        name, path = row.get(ROW_NAME, index), f" ({image['path']})" if image and image["path"] else ""
        raise ValueError(f"row {name} of the data set has an unreadable image in column {column!r}{path}: {error}") from error


def _load(name: str, config: str | None, split: str, streaming: bool = False) -> Dataset | IterableDataset:
    is_folder, file_format = os.path.isdir(name), FORMATS.get(Path(name).suffix)
    try:
        if is_folder and ({"dataset_info.json", "dataset_dict.json"} & set(os.listdir(name))):
            if streaming:
                raise ValueError("save_to_disk wrote it, and so it is read bit by bit already; leave out --streaming")
            dataset = load_from_disk(name)
            return dataset[split] if isinstance(dataset, dict) else dataset
        if is_folder or file_format is None:
            return load_dataset(name, config, split=split, streaming=streaming)
        if "://" not in name and not glob.glob(name, recursive=True):
            raise FileNotFoundError("there is no such file")
        return load_dataset(file_format, data_files=name, split=split, streaming=streaming)
    except Exception as error:
        where = "data set (no such folder, and it was not found on the Hub)"
        where = "local folder" if is_folder else "files" if file_format else where
        raise ValueError(f"cannot load the {where} {name!r}, split {split!r}: {_in_one_line(error)}") from error


def _in_one_line(error: Exception) -> str:
    """For networks, archives and formats, which report a failure by whatever exception comes up."""
    return " ".join(f"{type(error).__name__}: {error}".split())


def _find_columns(
    name: str, features: Features, columns: dict[str, str], image_columns: set[str]
) -> dict[str, tuple[str, ...]]:
    """For each column that is needed, the column that it is, and fields within it where that holds JSON."""
    there = {".".join(place): (place, feature) for place, feature in _places(features)}
    missing = sorted(set(columns.values()) - set(there))
    if missing:
        options = ", ".join(f"--{wanted}_column" for wanted, given in columns.items() if given in missing)
        raise ValueError(
            f"the data set {name} has no column {', '.join(map(repr, missing))}; it has {', '.join(there)}. "
            f"Name the right ones with {options}"
        )
    for wanted, given in columns.items():
        (place, feature), is_image = there[given], wanted in image_columns
        is_text = isinstance(feature, Value) and feature.dtype in ("string", "large_string")
        is_allowed = is_text or (is_image and isinstance(feature, Image))
        if not is_allowed or (is_image and len(place) > 1):
            raise ValueError(f"column {given!r} of {name} holds {feature}, not {'images' if is_image else 'texts'}")
        if is_image and list(columns.values()).count(given) > 1:
            raise ValueError(f"column {given!r} of {name} is named for two purposes")
    return {wanted: there[given][0] for wanted, given in columns.items()}


def _places(features: dict, parents: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], object]]:
    for name, feature in features.items():
        yield (*parents, name), feature
        if isinstance(feature, dict):
            yield from _places(feature, (*parents, name))


def _value(value: dict | str | None, fields: list[str]) -> str | None:
    for field in fields:
        value = None if value is None else value[field]
    return value


def _training_row(row: dict, places: dict[str, tuple[str, ...]], first_text: str) -> dict:
    values = {wanted: _value(row, place) for wanted, place in places.items()}
    if row.keys() >= {"__key__", "__url__"}:
        row_name = f"{row['__key__']!r} ({os.path.basename(row['__url__'])})"
    else:
        row_name = repr((values[first_text] or "")[:60])
    return {**values, ROW_NAME: row_name}
