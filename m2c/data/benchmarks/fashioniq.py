"""FashionIQ: three categories, two captions a query."""

from pathlib import Path

from .build import build_benchmark, items_of
from .files import check_choice, check_item, check_level, find_file, find_folder, list_files, read_json
from .form import Benchmark, make_query


SPLITS = ("train", "val", "test")
CATEGORIES = ("dress", "shirt", "toptee")
GALLERIES = ("original", "val")
CAPTION_FOLDERS = ("captions", "json", "")
SPLIT_FOLDERS = ("image_splits", "json", "")
IMAGE_FOLDERS = ("", "image_data")
# In upper or lower case; of several files of one image, the one with the first of them counts.
SUFFIXES = (".jpg", ".jpeg", ".png")


def read_queries(path: Path, category: str, split: str = "val") -> list[dict]:
    """The queries of a caption file, as rows of `QUERY_FEATURES`.

    The query's id is `<category>-<index in the file>`; its two captions stay apart, as the file has them, for the protocol to
    join. In `test` the target may be absent.

    Raises:
        ValueError: if the file is no complete JSON or of another schema; the message names file, item and key.
    """
    items, queries = read_json(path, "list"), []
    for index, (item, place) in enumerate(zip(items, items_of(path, len(items)))):
        keys = {"candidate": "text", "captions": "list of texts"}
        if split != "test" or "target" in item:
            keys["target"] = "text"
        check_item(item, keys, place)
        queries.append(make_query(f"{category}-{index}", item["candidate"], item["captions"], item.get("target")))
    return queries


def read_split(path: Path) -> list[str]:
    """The ids of the original gallery.

    Raises:
        ValueError: if the file is no complete JSON or not a list of texts.
    """
    names = read_json(path, "list")
    check_item({"ids": names}, {"ids": "list of texts"}, str(path))
    return names


def _files_by_id(folder: Path) -> dict[str, str]:
    """The path of each image in a folder, by its name without the suffix."""

    def rank(path: Path) -> tuple[int, bool, str]:
        return SUFFIXES.index(path.suffix.lower()), path.suffix != path.suffix.lower(), path.suffix

    paths = [Path(path) for path in list_files([folder]).values()]
    paths = [path for path in paths if path.suffix.lower() in SUFFIXES]
    # The last one of a key stays.
    return {path.stem: str(path) for path in sorted(paths, key=rank, reverse=True)}


def load_fashioniq(root: str | Path, split: str = "val", category: str = "dress", gallery: str = "original") -> Benchmark:
    """One category of one split of FashionIQ. Whether the images are there is not checked.

    Args:
        root: folder with `captions/cap.<category>.<split>.json` and `image_splits/split.<category>.<split>.json` (or `json/`,
            or flat), and `images/`, where each image is a `.jpg`, `.jpeg` or `.png`.
        split: `"train"`, `"val"` or `"test"`.
        category: `"dress"`, `"shirt"` or `"toptee"`.
        gallery: `"original"`, every image of the split file, or `"val"`, the candidates and targets only, in the order in which
            the queries name them first.

    Raises:
        ValueError: if a file is not there, incomplete or of another schema, or the root is one level too high or low; or the
            gallery is `"val"` and the targets are secret.
    """
    check_choice("split of FashionIQ", split, SPLITS)
    check_choice("category of FashionIQ", category, CATEGORIES)
    check_choice("gallery of FashionIQ", gallery, GALLERIES)
    root = Path(root)
    captions = find_file(root, f"cap.{category}.{split}.json", CAPTION_FOLDERS)
    queries = read_queries(captions, category, split)
    if gallery == "original":
        ids = read_split(find_file(root, f"split.{category}.{split}.json", SPLIT_FOLDERS))
    elif any(query["target_id"] is None for query in queries):
        raise ValueError(f"{captions} has secret targets, so there is no gallery of candidates and targets; use 'original'")
    else:
        ids = [image for query in queries for image in (query["reference_id"], query["target_id"])]
    check_level(root, captions.name, CAPTION_FOLDERS, [str(Path(place) / "images") for place in IMAGE_FOLDERS])
    folder = find_folder(root, "images", IMAGE_FOLDERS)
    files = _files_by_id(folder)
    images = {image: files.get(image, f"{folder}/{image}.jpg") for image in ids}
    return build_benchmark("fashioniq", split, images, queries, captions, category=category, variant=gallery)
