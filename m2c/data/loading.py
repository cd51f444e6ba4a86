"""Training data from the Hub, a local folder, or the scenes world; and their images, opened with care."""

import io
import os
from pathlib import Path

from datasets import Dataset, Image, Value, load_dataset, load_from_disk
from PIL.Image import Image as Picture

from processing_m2c.images import open_image


def load_rows(name: str, columns: dict[str, str], image_columns: set[str], config: str | None, split: str) -> Dataset:
    """One split of a data set, with its columns renamed to the ones that training uses.

    Args:
        name: a repository of the Hub, a local folder (ImageFolder, parquet, CSV, ...), or one that `save_to_disk` wrote.
        columns: for each column that is needed, its name in the data set.
        image_columns: which of them hold images (or paths of images); they stay undecoded until [`read_image`].
        config: configuration of the data set.
        split: split of the data set.

    Raises:
        ValueError: if there is no such data set, split or column, or no row; the message lists what there is.
    """
    dataset = _load(name, config, split)
    missing = sorted(set(columns.values()) - set(dataset.column_names))
    if missing:
        options = ", ".join(f"--{wanted}_column" for wanted, given in columns.items() if given in missing)
        raise ValueError(
            f"the data set {name} has no column {', '.join(map(repr, missing))}; it has {', '.join(dataset.column_names)}. "
            f"Name the right ones with {options}"
        )
    if len(dataset) == 0:
        raise ValueError(f"the data set {name} has no rows in its split {split}")
    for wanted, given in columns.items():
        feature, is_image = dataset.features[given], wanted in image_columns
        is_text = isinstance(feature, Value) and feature.dtype in ("string", "large_string")
        if not (is_text or (is_image and isinstance(feature, Image))):
            raise ValueError(f"column {given!r} of {name} holds {feature}, not {'images' if is_image else 'texts'}")
        if is_image and list(columns.values()).count(given) > 1:
            raise ValueError(f"column {given!r} of {name} is named for two purposes")
    # Two texts may share a column: the modification text can serve as the caption, for want of a better one.
    shared = {wanted: given for wanted, given in columns.items() if list(columns.values()).count(given) > 1}
    for wanted, given in shared.items():
        dataset = dataset.add_column(f"_{wanted}", dataset[given][:])
    names = {f"_{wanted}" if wanted in shared else given: wanted for wanted, given in columns.items()}
    return undecoded(dataset.select_columns(list(names)).rename_columns(names), image_columns)


def undecoded(dataset: Dataset, image_columns: set[str]) -> Dataset:
    """The data set with its images as bytes or paths, for [`read_image`]."""
    for column in image_columns:
        dataset = dataset.cast_column(column, Image(decode=False))
    return dataset


def _load(name: str, config: str | None, split: str) -> Dataset:
    is_folder = os.path.isdir(name)
    try:
        if is_folder and ({"dataset_info.json", "dataset_dict.json"} & set(os.listdir(name))):
            dataset = load_from_disk(name)
            return dataset[split] if isinstance(dataset, dict) else dataset
        return load_dataset(name, config, split=split)
    except (OSError, ValueError, KeyError) as error:
        where = "local folder" if is_folder else "data set (no such folder, and it was not found on the Hub)"
        raise ValueError(f"cannot load the {where} {name!r}, split {split!r}: {error}") from error


def read_image(row: dict, column: str, index: int) -> Picture:
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
        path = f" ({image['path']})" if image and image["path"] else ""
        raise ValueError(f"row {index} of the data set has an unreadable image in column {column!r}{path}: {error}") from error
