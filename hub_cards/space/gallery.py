"""The pictures that a Space searches, and queries to begin with."""

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from datasets import Image

from hub_cards.licences import SHIPPED
from m2c.data.benchmarks.files import check_images, check_item
from m2c.data.picture_files import find_pictures
from m2c.data.scenes import composed_retrieval
from processing_m2c.images import open_image

from .template.search import name_of


EXAMPLES = "examples.jsonl"
SCENES_QUERIES, SCENES_EXAMPLES = 20, 6
# A page shows them smaller, and no CLIP looks closer. In pixels.
LONGEST_SIDE = 640


@dataclass(frozen=True)
class Gallery:
    """Pictures to be searched.

    Args:
        licence: of the pictures, by its Hub identifier.
        pictures: by name, a path or the bytes of a file.
        examples: queries: the name of a reference picture, and a modification text.
    """

    licence: str
    pictures: Mapping[str, Path | bytes]
    examples: list[tuple[str, str]]


def read_gallery(name: str, licence: str | None) -> Gallery:
    """The pictures in a folder and below it.

    Example queries are in its file `examples.jsonl`, if there is one; each line is an object with `file_name`, the path of the
    reference picture below the folder, and `modification`.

    Args:
        name: the folder; or `"scenes"`, drawn pictures with example queries.
        licence: of the pictures, by its Hub identifier; of scenes it is known.

    Raises:
        ValueError: if there is no such folder, no picture in it, one that cannot be read, no licence, or a damaged example; the
            message names it.
    """
    if name == "scenes":
        return _scenes(licence or SHIPPED["scenes"])
    folder = Path(name)
    if not folder.is_dir():
        raise ValueError(f"the gallery {name} is no folder; name a folder of pictures, or scenes")
    if not licence:
        raise ValueError(f"the pictures in {name} have no licence; name one with --licence, as the Hub spells it: cc-by-4.0")
    found = find_pictures(folder)
    names = {str(path): name for name, path in found.items()}
    if problems := check_images(list(names)):
        first = ", ".join(f"{names[path]} ({reason})" for path, reason in list(problems.items())[:3])
        raise ValueError(f"{len(problems)} of {len(found)} pictures in {name} cannot be used: {first}. Repair or remove them")
    return Gallery(licence, found, _read_examples(folder / EXAMPLES, found))


def store(gallery: Gallery, folder: Path) -> dict[str, str]:
    """Writes the pictures into `folder`: upright, of a moderate size, without what a camera notes down, such as the place.

    Returns:
        For the name of each picture that of its file, which is made of its content: of equal pictures one is kept.

    Raises:
        ValueError: if a picture cannot be read; the message names it.
    """
    files = {}
    for name, source in gallery.pictures.items():
        picture = open_image(io.BytesIO(source) if isinstance(source, bytes) else source)
        picture.thumbnail((LONGEST_SIDE, LONGEST_SIDE))
        picture.info.clear()
        is_png = Path(name).suffix.lower() == ".png"
        buffer = io.BytesIO()
        picture.save(buffer, "PNG" if is_png else "JPEG", quality=90)
        files[name] = f"{name_of(buffer.getvalue())}.{'png' if is_png else 'jpg'}"
        (folder / files[name]).write_bytes(buffer.getvalue())
    return files


def _scenes(licence: str) -> Gallery:
    data = composed_retrieval(SCENES_QUERIES)
    rows = data["gallery"].cast_column("image", Image(decode=False))
    pictures = {f"{row['id']}.png": row["image"]["bytes"] for row in rows}
    examples = [(f"{row['reference_id']}.png", row["modification"]) for row in data["queries"].select(range(SCENES_EXAMPLES))]
    return Gallery(licence, pictures, examples)


def _read_examples(path: Path, pictures: Mapping[str, Path]) -> list[tuple[str, str]]:
    if not path.is_file():
        return []
    examples = []
    for number, line in enumerate(path.read_bytes().splitlines(), 1):
        if not line.strip():
            continue
        place = f"line {number} of {path}"
        try:
            example = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{place} is no JSON ({error})") from error
        check_item(example, {"file_name": "text", "modification": "text"}, place)
        if example["file_name"] not in pictures:
            raise ValueError(f"{place}: the gallery has no picture {example['file_name']!r}")
        examples.append((example["file_name"], example["modification"]))
    return examples
