"""CIRR: captions and splits of version rc2, images by split."""

from pathlib import Path

from .build import build_benchmark, items_of
from .files import check_choice, check_item, check_level, find_file, find_folder, read_json
from .form import Benchmark, make_query


SPLITS = ("train", "val", "test1")
CAPTION_FOLDERS = ("captions", "cirr/captions", "json", "cirr/json", "", "cirr")
SPLIT_FOLDERS = ("image_splits", "cirr/image_splits", "", "cirr")
IMAGE_FOLDERS = ("", "cirr", "images", "img_raw", "cirr/images", "cirr/img_raw")


def read_queries(path: Path, split: str) -> list[dict]:
    """The queries of a caption file, as rows of `QUERY_FEATURES`.

    The query's id is `pairid`; `subset_ids` are the members of its set without the reference, in the file's order. In `test1`
    the target is secret, and a caption may be blank.

    Raises:
        ValueError: if the file is no complete JSON or of another schema, or a target of `val` is not in `subset_ids`; the
            message names file, item and key.
    """
    keys = {"pairid": "whole number", "reference": "text", "caption": "text", "img_set": "object"}
    if split != "test1":
        keys["target_hard"] = "text"
    items, queries = read_json(path, "list"), []
    for item, place in zip(items, items_of(path, len(items))):
        check_item(item, keys, place)
        check_item(item["img_set"], {"members": "list of texts"}, f"'img_set' of {place}")
        reference = item["reference"]
        subset = [member for member in item["img_set"]["members"] if member != reference]
        target = None if split == "test1" else item["target_hard"]
        if split == "val" and target not in subset:
            # Subset recall ranks nothing else, so it would count a miss whatever the model says.
            raise ValueError(f"{place}: 'target_hard' {target!r} is not among the other members of its 'img_set'")
        queries.append(make_query(str(item["pairid"]), reference, [item["caption"]], target, subset_ids=subset))
    return queries


def read_split(path: Path) -> dict[str, str]:
    """The path of every image of a split file, relative to the images' folder, by name.

    Raises:
        ValueError: if the file is no complete JSON or of another schema; the message names file and entry.
    """
    images = read_json(path, "object")
    check_item(images, dict.fromkeys(images, "text"), str(path))
    for name, image in images.items():
        if not Path(image).parts:
            raise ValueError(f"{path}: {name!r} must be the path of an image, not {image!r}")
    return images


def load_cirr(root: str | Path, split: str = "val") -> Benchmark:
    """One split of CIRR; its gallery is every image of the split. Whether the images are there is not checked.

    Args:
        root: folder with `captions/cap.rc2.<split>.json` and `image_splits/split.rc2.<split>.json` (or both of them below
            `cirr/`, or flat), and `train/`, `dev/`, `test1/` (or these below `cirr/`, `images/` or `img_raw/`).
        split: `"train"`, `"val"` or `"test1"`.

    Raises:
        ValueError: if a file is not there, incomplete or of another schema, or the root is one level too high or low.
    """
    check_choice("split of CIRR", split, SPLITS)
    root = Path(root)
    captions = find_file(root, f"cap.rc2.{split}.json", CAPTION_FOLDERS)
    paths = read_split(find_file(root, f"split.rc2.{split}.json", SPLIT_FOLDERS))
    # "./dev/name.png": where "dev" lies differs from copy to copy.
    tops = {Path(path).parts[0] for path in paths.values()}
    check_level(root, captions.name, CAPTION_FOLDERS, [str(Path(folder) / top) for top in tops for folder in IMAGE_FOLDERS])
    folders = {top: find_folder(root, top, IMAGE_FOLDERS) for top in tops}
    images = {name: str(folders[Path(path).parts[0]].parent / path) for name, path in paths.items()}
    return build_benchmark("cirr", split, images, read_queries(captions, split), captions)
