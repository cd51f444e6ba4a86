"""Reads annotations, galleries and predictions; a file that cannot be what it should be is named, with the remedy."""

import json
import re
from pathlib import Path

from m2c.data.benchmarks.files import check_item


_ID = {"cirr": "pairid", "circo": "id"}
_FIELDS = {
    "cirr": {"pairid": "whole number", "reference": "text", "img_set": "object"},
    "circo": {"id": "whole number", "reference_img_id": "whole number"},
}
_ANSWERS = {
    "cirr": {"target_hard": "text"},
    "circo": {
        "target_img_id": "whole number",
        "gt_img_ids": "list of one or more whole numbers",
        "semantic_aspects": "list of texts",
    },
}


def read_predictions(path: Path) -> object:
    """What a prediction file holds; whether it is right is for the validators to say.

    Raises:
        OSError: if there is no such file.
        ValueError: if the file is empty, cut off, an archive, nested too deep, has a key twice or an integer of thousands of
            digits, or holds annotations.
    """
    content = _read_json(path)
    if _are_annotations(content):
        raise ValueError(f"{path} holds annotations, not predictions; give the file with the ranking of each query instead")
    return content


def read_annotations(path: Path, benchmark: str) -> list[dict]:
    """The queries of CIRR's `cap.rc2.<split>.json` or of CIRCO's `val.json` and `test.json`.

    Raises:
        OSError: if there is no such file.
        ValueError: if the file is unreadable, holds something else, lacks fields or has other types in them, or was shortened.
    """
    items = _read_json(path)
    if not _are_annotations(items):
        raise ValueError(f"{path} holds no annotations; give the benchmark's own file with the queries, a list of objects")
    fields = _FIELDS[benchmark] | (_ANSWERS[benchmark] if has_targets(items, benchmark) else {})
    for place, item in enumerate(items):
        if missing := [field for field in fields if field not in item]:
            lacking = ", ".join(missing)
            raise ValueError(f"{path}: item {place} has no {lacking}; are these the annotations of {benchmark}, unchanged?")
        check_item(item, fields, f"{path}: item {place}")
        if benchmark == "cirr":
            check_item(item["img_set"], {"members": "list of texts"}, f"{path}: 'img_set' of item {place}")
    ids = [item[_ID[benchmark]] for item in items]
    if len(set(ids)) < len(ids) or (benchmark == "circo" and set(ids) != set(range(len(ids)))):
        rule = "exactly 0 to n-1" if benchmark == "circo" else "all different"
        raise ValueError(f"{path}: the ids of its queries are not {rule}; download the annotations again")
    return items


def has_targets(queries: list[dict], benchmark: str) -> bool:
    """Whether any query of the annotations has an answer; those of a test split have none."""
    return any(field in query for query in queries for field in _ANSWERS[benchmark])


def find_gallery(annotations: Path, benchmark: str) -> tuple[frozenset | None, Path | None, str]:
    """The gallery whose file lies beside the annotations or where the owners keep it.

    Returns:
        The names (CIRR) or ids (CIRCO) of its images, the file that was read, and what was looked for where, in words. The
        first two are `None` where there is no such file.

    Raises:
        ValueError: if the file is there but is not what its name says.
    """
    folder = annotations.parent
    if benchmark == "cirr":
        split = re.fullmatch(r"cap\.rc2\.(\w+)\.json", annotations.name)
        name = f"split.rc2.{split[1] if split else '<split>'}.json"
        elsewhere = ["../image_splits"]
    else:
        name = "image_info_unlabeled2017.json"
        elsewhere = ["../COCO2017_unlabeled/annotations", "../annotations"]
    searched = " or in ".join([f"{name} beside the annotations", *elsewhere])
    for path in (folder / place / name for place in (".", *elsewhere)):
        if path.is_file():
            return _read_gallery(path, benchmark), path, searched
    return None, None, searched


def _read_gallery(path: Path, benchmark: str) -> frozenset:
    content = _read_json(path)
    if isinstance(content, dict) and benchmark == "cirr":
        return frozenset(content)
    images = content.get("images") if isinstance(content, dict) else None
    if not isinstance(images, list) or not all(isinstance(image, dict) and type(image.get("id")) is int for image in images):
        raise ValueError(f"{path} does not list the images of a gallery; download it again, or move it away to go without")
    return frozenset(image["id"] for image in images)


def _are_annotations(content: object) -> bool:
    return isinstance(content, list) and bool(content) and all(isinstance(item, dict) for item in content)


def _read_json(path: Path) -> object:
    data = path.read_bytes()
    if not data.strip():
        raise ValueError(f"{path} is empty; write or download it again")
    if data.startswith((b"PK\x03\x04", b"\x1f\x8b")):
        raise ValueError(f"{path} is an archive; unpack it and give the JSON file inside")

    repeated = []

    def note_repeated(pairs: list[tuple]) -> dict:
        content = dict(pairs)
        if len(content) < len(pairs):
            keys = [key for key, _ in pairs]
            repeated.append(next(key for key in content if keys.count(key) > 1))
        return content

    try:
        content = json.loads(data, object_pairs_hook=note_repeated)
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise ValueError(f"{path} is not JSON, or cut off: {error.msg} at {where}; write or download it again") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not text; give a JSON file") from error
    except RecursionError as error:
        raise ValueError(
            f"{path} is nested too deep for a prediction or annotation file; write or download it again"
        ) from error
    except ValueError as error:
        raise ValueError(f"{path} cannot be read as JSON: {error}; write or download it again") from error
    if repeated:
        raise ValueError(f"{path} has the key {repeated[0]!r} more than once; write each query once")
    return content
