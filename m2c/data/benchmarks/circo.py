"""CIRCO: queries over the unlabeled images of COCO 2017."""

from pathlib import Path

from .build import build_benchmark, items_of
from .files import check_choice, check_item, check_level, find_file, find_folder, read_json
from .form import Benchmark, make_query


SPLITS = ("val", "test")
QUERY_FOLDERS = ("annotations", "json", "captions", "")
COCO_FOLDERS = ("COCO2017_unlabeled", "", "coco2017", "coco", "COCO2017", "images")
IMAGE_INFO = "image_info_unlabeled2017.json"


def read_queries(path: Path, split: str) -> list[dict]:
    """The queries of an annotation file, as rows of `QUERY_FEATURES`.

    The query's id is `id`, an image's id that of COCO, both as text. In `test`, target, answers and aspects are secret.

    Raises:
        ValueError: if the file is no complete JSON or of another schema; the message names file, item and key.
    """
    number = "whole number"
    keys = {"id": number, "reference_img_id": number, "relative_caption": "text", "shared_concept": "text"}
    if split != "test":
        keys |= {
            "target_img_id": number,
            "gt_img_ids": "list of one or more whole numbers",
            "semantic_aspects": "list of texts",
        }
    items, queries = read_json(path, "list"), []
    for item, place in zip(items, items_of(path, len(items))):
        check_item(item, keys, place)
        columns = {"shared_concept": item["shared_concept"]}
        if split != "test":
            columns |= {"answer_ids": [str(image) for image in item["gt_img_ids"]], "aspects": item["semantic_aspects"]}
        target = None if split == "test" else str(item["target_img_id"])
        query = make_query(str(item["id"]), str(item["reference_img_id"]), [item["relative_caption"]], target, **columns)
        queries.append(query)
    return queries


def read_image_info(path: Path) -> dict[str, str]:
    """The file name of every image of COCO's `image_info_unlabeled2017.json`, by its id as text.

    Raises:
        ValueError: if the file is no complete JSON or of another schema.
    """
    content = read_json(path, "object")
    check_item(content, {"images": "list"}, str(path))
    for index, item in enumerate(content["images"]):
        check_item(item, {"id": "whole number", "file_name": "text"}, f"item {index} of 'images' of {path}")
    return {str(item["id"]): item["file_name"] for item in content["images"]}


def load_circo(root: str | Path, split: str = "val") -> Benchmark:
    """One split of CIRCO; its gallery is every unlabeled image of COCO 2017. Whether the images are there is not checked.

    Args:
        root: folder with `annotations/<split>.json` (or flat), and `unlabeled2017/` with its
            `annotations/image_info_unlabeled2017.json`, both either here or below `COCO2017_unlabeled/` or the like.
        split: `"val"` or `"test"`.

    Raises:
        ValueError: if a file is not there, incomplete or of another schema, or the root is one level too high or low.
    """
    check_choice("split of CIRCO", split, SPLITS)
    root = Path(root)
    annotations = find_file(root, f"{split}.json", QUERY_FOLDERS)
    info_folders = [str(Path(folder) / inner) for inner in ("annotations", "") for folder in COCO_FOLDERS]
    hint = "It lists CIRCO's gallery, and comes with COCO's download of image information for unlabeled2017."
    names = read_image_info(find_file(root, IMAGE_INFO, info_folders, hint))
    check_level(root, annotations.name, QUERY_FOLDERS, [str(Path(folder) / "unlabeled2017") for folder in COCO_FOLDERS])
    folder = find_folder(root, "unlabeled2017", COCO_FOLDERS)
    images = {image: f"{folder}/{name}" for image, name in names.items()}
    return build_benchmark("circo", split, images, read_queries(annotations, split), annotations)
