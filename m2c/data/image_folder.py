"""Writes a data set as an ImageFolder: pictures and a `metadata.jsonl` that `load_dataset` reads anywhere."""

import io
import json
from pathlib import Path

from datasets import Dataset, DatasetDict, Image
from PIL import Image as PILImage
from tqdm.auto import tqdm


def write_image_folder(dataset: Dataset | DatasetDict, directory: str | Path) -> Path:
    """Writes `dataset` so that `datasets.load_dataset("imagefolder", data_dir=directory)` gives it back.

    Each image column becomes a folder of files; its name in `metadata.jsonl` is `file_name`, or `<column>_file_name` where
    there are several. A [`~datasets.DatasetDict`] becomes one folder for each split.

    Raises:
        FileExistsError: if the directory exists and is not empty. Nothing in it is touched.
    """
    directory = Path(directory)
    if directory.exists() and any(directory.iterdir()):
        raise FileExistsError(f"{directory} exists and is not empty; choose another folder")
    if isinstance(dataset, DatasetDict):
        for split, part in dataset.items():
            write_image_folder(part, directory / split)
        return directory
    columns = [name for name, feature in dataset.features.items() if isinstance(feature, Image)]
    for column in columns:
        (directory / column).mkdir(parents=True)
        dataset = dataset.cast_column(column, Image(decode=False))
    directory.mkdir(parents=True, exist_ok=True)
    with open(directory / "metadata.jsonl", "w", encoding="utf-8") as metadata:
        for index, row in enumerate(tqdm(dataset, desc=f"writing {directory.name}")):
            for column in columns:
                name = f"{column}/{index:06d}"
                suffix = _write_image(directory / name, row.pop(column))
                row["file_name" if columns == ["image"] else f"{column}_file_name"] = name + suffix
            metadata.write(json.dumps(row, ensure_ascii=False) + "\n")
    return directory


def _write_image(stem: Path, image: dict) -> str:
    """Writes the image's own bytes, unchanged, and returns the file's suffix."""
    data = image["bytes"] if image["bytes"] is not None else Path(image["path"]).read_bytes()
    with PILImage.open(io.BytesIO(data)) as opened:
        suffix = "." + opened.format.lower()
    stem.with_suffix(suffix).write_bytes(data)
    return suffix
