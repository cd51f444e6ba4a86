"""GeneCIS: four tasks over COCO val2017 and Visual Genome, each query with a small gallery of its own."""

from pathlib import Path

from PIL import Image
from PIL.Image import Image as Picture

from .build import build_benchmark, items_of
from .files import check_choice, check_item, check_level, find_file, find_folder, list_files, read_json
from .form import Benchmark, make_query


TASKS = ("focus_attribute", "change_attribute", "focus_object", "change_object")
TASK_FOLDERS = ("genecis", "annotations", "json", "")
COCO_FOLDERS = ("", "coco2017", "coco", "COCO2017", "COCO2017_val", "images")
GENOME_BASES = ("", "Visual_Genome", "VisualGenome", "visual_genome", "vg", "images")
GENOME_FOLDERS = ("VG_100K", "VG_100K_2", "VG_100K_all", "VG_All", "VG_ALL")
DILATION = 0.7


def cut_to_box(picture: Picture, box: list[float]) -> Picture:
    """The part of a Visual Genome picture that counts, padded with black to a square.

    As in the benchmark's own evaluation code: the box grows by 0.7 of its size and moves by as much to the upper left, so where
    nothing is clipped its right and lower edges stay. At the picture's left or upper border the growth shows on the other side.

    Args:
        picture: RGB.
        box: [x, y, width, height] in pixels.

    Raises:
        ValueError: if the box is outside the picture, or so small that there is not a pixel to cut out.
    """
    x, y, width, height = box
    # Whatever is no number fails every comparison.
    is_inside = -width < x < picture.width and -height < y < picture.height
    if not (is_inside and width > 0 and height > 0):
        raise ValueError(_no_such_part(picture, box))
    left, top = max(0, x - DILATION * width), max(0, y - DILATION * height)
    right = min(picture.width, left + (1 + DILATION) * width)
    bottom = min(picture.height, top + (1 + DILATION) * height)
    part = picture.crop((left, top, right, bottom))
    if 0 in part.size:
        raise ValueError(_no_such_part(picture, box))
    side = max(part.size)
    square = Image.new("RGB", (side, side))
    square.paste(part, ((side - part.width) // 2, (side - part.height) // 2))
    return square


def _no_such_part(picture: Picture, box: list[float]) -> str:
    size = f"{picture.width} x {picture.height} pixels"
    return f"the box {box} ([x, y, width, height]) has no area in the picture of {size}"


def read_queries(path: Path, task: str) -> tuple[list[dict], dict[str, tuple[str, list[float]]]]:
    """The queries of a task, as rows of `QUERY_FEATURES`, and the images that they name.

    The query's id is `<task>-<index in the file>`; `subset_ids` is its own gallery, the target first and without the reference.

    Returns:
        The queries; and, by id, each image's file name and box: for the attribute tasks the box is part of the id,
        `<image>:<x>,<y>,<width>,<height>`; for the object tasks it is empty.

    Raises:
        ValueError: if the file is no complete JSON or of another schema; the message names file, item and key.
    """
    items, queries, images = read_json(path, "list"), [], {}
    for index, (item, place) in enumerate(zip(items, items_of(path, len(items)))):
        check_item(item, {"reference": "object", "target": "object", "gallery": "list", "condition": "text"}, place)
        entries = [item["reference"], item["target"], *item["gallery"]]
        names = ["'reference'", "'target'", *(f"entry {number} of 'gallery'" for number in range(len(item["gallery"])))]
        named = [_image(entry, task, f"{name} of {place}") for name, entry in zip(names, entries)]
        images.update((image, (file, box)) for image, file, box in named)
        reference, *subset = (image for image, _, _ in named)
        queries.append(make_query(f"{task}-{index}", reference, [item["condition"]], subset[0], subset_ids=subset))
    return queries, images


def _image(entry: dict, task: str, place: str) -> tuple[str, str, list[float]]:
    """Id, file name and box of an image."""
    if task.endswith("object"):
        check_item(entry, {"val_image_id": "whole number"}, place)
        return str(entry["val_image_id"]), f"{entry['val_image_id']:012d}.jpg", []
    check_item(entry, {"image_id": "name or number", "instance_bbox": "box [x, y, width, height]"}, place)
    box = ",".join(map(str, entry["instance_bbox"]))
    return f"{entry['image_id']}:{box}", f"{entry['image_id']}.jpg", entry["instance_bbox"]


def load_genecis(root: str | Path, task: str = "focus_attribute") -> Benchmark:
    """One task of GeneCIS. Whether the images are there is not checked.

    Each query ranks its own gallery, `subset_ids`. The benchmark's gallery holds all images of the task once, references
    included; of the attribute tasks one entry for each box, which `picture` cuts out.

    Args:
        root: folder with `genecis/<task>.json` (or flat); for the object tasks `val2017/` (or below `coco2017/` or the like);
            for the attribute tasks `VG_100K/` and `VG_100K_2/`, or all images in one of `VG_100K_all/` and `VG_All/` (or below
            `Visual_Genome/` or the like).
        task: one of `TASKS`.

    Raises:
        ValueError: if a file is not there, incomplete or of another schema, or the root is one level too high or low.
    """
    check_choice("task of GeneCIS", task, TASKS)
    root = Path(root)
    path = find_file(root, f"{task}.json", TASK_FOLDERS)
    queries, named = read_queries(path, task)
    if task.endswith("object"):
        places = [str(Path(folder) / "val2017") for folder in COCO_FOLDERS]
        folders = [find_folder(root, "val2017", COCO_FOLDERS)]
    else:
        places = [str(Path(base) / folder) for base in GENOME_BASES for folder in GENOME_FOLDERS]
        folders = [root / place for place in places]
    check_level(root, path.name, TASK_FOLDERS, places)
    files = list_files(folders)
    images = {image: files.get(file, f"{folders[0]}/{file}") for image, (file, _) in named.items()}
    boxes = {image: box for image, (_, box) in named.items() if box}
    return build_benchmark("genecis", "val", images, queries, path, boxes, category=task, crop=cut_to_box if boxes else None)
