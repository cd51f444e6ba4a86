"""Finds and reads a benchmark's files in their usual layouts, and says what was expected where if they are not there."""

import io
import json
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO

from PIL import Image, UnidentifiedImageError
from tqdm.auto import tqdm


def _is_whole_number(value: object) -> bool:
    # Python counts true and false among the integers.
    return isinstance(value, int) and not isinstance(value, bool)


def _is_plain_name(value: object) -> bool:
    if not isinstance(value, str) or not value.strip() or len(value) > NAME_LENGTH:
        return False
    # What cannot be printed, as a zero, a line break or half a surrogate pair, cannot be in every file name either.
    return value.isprintable() and not value.startswith(".") and not {"/", "\\"} & set(value)


NAME_LENGTH = 100
PLAIN_NAME = f"plain name (1 to {NAME_LENGTH} printable characters, none of them / or \\, the first no dot)"
KINDS = {
    "text": lambda value: isinstance(value, str),
    "text or null": lambda value: value is None or isinstance(value, str),
    PLAIN_NAME: _is_plain_name,
    f"{PLAIN_NAME} or null": lambda value: value is None or _is_plain_name(value),
    "whole number": _is_whole_number,
    "name or number": lambda value: isinstance(value, (str, int)),
    "object": lambda value: isinstance(value, dict),
    "mapping of texts to whole numbers": lambda value: isinstance(value, dict) and all(map(_is_whole_number, value.values())),
    "list": lambda value: isinstance(value, list),
    "list of texts": lambda value: isinstance(value, list) and all(isinstance(entry, str) for entry in value),
    "list of one or more whole numbers": lambda value: (
        isinstance(value, list) and bool(value) and all(map(_is_whole_number, value))
    ),
    "box [x, y, width, height]": lambda value: (
        isinstance(value, list) and len(value) == 4 and all(isinstance(entry, (int, float)) for entry in value)
    ),
}
# A JPEG or PNG that came through whole ends with these; some writers pad the file behind them.
END_MARKERS = {"JPEG": b"\xff\xd9", "MPO": b"\xff\xd9", "PNG": b"IEND"}
TAIL = 64
CHUNK = 256
SHOW_PROGRESS_FROM = 2000


def check_choice(kind: str, value: str, choices: Sequence[str]) -> None:
    """Checks that `value` is one of `choices`.

    Raises:
        ValueError: if not; the message lists them.
    """
    if value not in choices:
        raise ValueError(f"there is no {kind} {value!r}; there is {', '.join(choices) or 'none'}")


def find_file(root: Path, name: str, folders: Sequence[str], hint: str = "") -> Path:
    """The file `name` in the first of `folders` below `root` that has it; `""` stands for the root itself.

    Raises:
        ValueError: if there is none; the message lists where it is expected, whether the root is one level too high or too
            low, and ends with `hint`.
    """
    for folder in folders:
        if (root / folder / name).is_file():
            return root / folder / name
    if not root.is_dir():
        raise ValueError(f"the root {root} is not a folder")
    places = ", ".join(f"{folder}/" if folder else "the root itself" for folder in folders)
    level = _other_level(root, name, folders)
    raise ValueError(
        f"{name} was not found in the root {root}; it is expected in one of: {places}.{level}{hint and ' ' + hint}"
    )


def find_folder(root: Path, name: str, folders: Sequence[str]) -> Path:
    """The folder `name` in the first of `folders` below `root` that has it, or where it should be if there is none.

    A folder that is absent is no error: its images are reported as missing, by name and count, with all others.
    """
    return next((root / folder / name for folder in folders if (root / folder / name).is_dir()), root / folders[0] / name)


def _other_level(root: Path, name: str, folders: Sequence[str]) -> str:
    def is_root(base: Path) -> bool:
        return any((base / folder / name).exists() for folder in folders)

    if is_root(root.resolve().parent):
        return f" It is there below {root.resolve().parent}: the root given is one level too low."
    for base in sorted(path for path in root.iterdir() if path.is_dir()):
        if is_root(base):
            return f" It is there below {base}: the root given is one level too high."
    return ""


def check_level(root: Path, file: str, file_folders: Sequence[str], image_folders: Sequence[str]) -> None:
    """Checks that a root that has the annotations is not one level too low: without images, which are beside it.

    Annotations may lie flat in the root, so the folder that holds only them passes for the root of another layout.

    Args:
        root: where `file` was found.
        file: name of the annotations.
        file_folders: where it may be, below the root.
        image_folders: where the images may be, below the root. That they are nowhere is no error.

    Raises:
        ValueError: if the images and `file` are below the folder above the root, and the images not below the root.
    """
    above = root.resolve().parent
    if any((root / folder).is_dir() for folder in image_folders):
        return
    images = next((above / folder for folder in image_folders if (above / folder).is_dir()), None)
    if images is not None and any((above / folder / file).is_file() for folder in file_folders):
        raise ValueError(
            f"there are no images in the root {root}, but {images} is there, and {file} is also below {above}: the root given "
            "is one level too low"
        )


def list_files(folders: Sequence[Path]) -> dict[str, str]:
    """The path of every file that lies directly in one of `folders`, by its name. Folders that are absent count as empty."""
    return {entry.name: entry.path for folder in folders if folder.is_dir() for entry in os.scandir(folder)}


def read_json(path: Path, kind: str) -> list | dict:
    """The content of a JSON file whose outermost value is of `kind`: `"list"` or `"object"`.

    Raises:
        ValueError: if it cannot be read, is no complete JSON (the download broke off, or it is a web page), is nested too deep,
            has a number of thousands of digits, or is of another kind.
    """
    try:
        # Some editors put a byte order mark before the text.
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is no complete JSON ({error}); was its download cut off? Fetch it again") from error
    except RecursionError as error:
        raise ValueError(f"{path} is nested too deep for a benchmark's file; fetch it again") from error
    except ValueError as error:
        raise ValueError(f"{path} cannot be read as JSON ({error}); fetch it again") from error
    if not KINDS[kind](content):
        raise ValueError(f"{path} holds a {type(content).__name__}, where a JSON {kind} is expected")
    return content


def check_item(item: object, keys: dict[str, str], place: str) -> None:
    """Checks that `item` is an object with `keys`, each of the kind (of `KINDS`) that stands behind it.

    Raises:
        ValueError: if not; the message begins with `place` and names the key.
    """
    if not isinstance(item, dict):
        raise ValueError(f"{place}: an object with {', '.join(keys)} is expected, not {item!r:.100}")
    for key, kind in keys.items():
        if key not in item:
            raise ValueError(f"{place} has no {key!r}; it has {', '.join(map(str, item)) or 'nothing'}")
        if not KINDS[kind](item[key]):
            raise ValueError(f"{place}: {key!r} must be a {kind}, not {item[key]!r:.100}")


def check_images(paths: Sequence[str]) -> dict[str, str]:
    """Which image files are missing, no images, or truncated, and why.

    Only headers and ends of files are read; a JPEG or PNG without its end marker is decoded, which shows whether it is cut off
    or only ends unusually. Other formats are checked by their header alone.

    Returns:
        For each path with a problem, the reason; in the order of `paths`.
    """
    paths = list(dict.fromkeys(paths))
    chunks = [paths[start : start + CHUNK] for start in range(0, len(paths), CHUNK)]
    problems = {}
    with ThreadPoolExecutor() as pool, tqdm(total=len(paths), desc="images", disable=len(paths) < SHOW_PROGRESS_FROM) as bar:
        for found, chunk in zip(pool.map(_problems, chunks), chunks):
            problems.update(found)
            bar.update(len(chunk))
    return problems


def _problems(paths: list[str]) -> dict[str, str]:
    reasons = {path: _file_problem(path) for path in paths}
    return {path: reason for path, reason in reasons.items() if reason}


def _file_problem(path: str) -> str | None:
    try:
        with open(path, "rb") as file:
            return _problem(file)
    except FileNotFoundError:
        return "missing"
    except (OSError, ValueError) as error:
        # A text with a zero in it is no path at all.
        return f"unreadable ({error})"


def check_bytes(data: bytes) -> str | None:
    """Why an image file's bytes are no image, or truncated, by the same look as [`check_images`]; `None` if they are fine."""
    return _problem(io.BytesIO(data))


def _problem(file: BinaryIO) -> str | None:
    try:
        beginning = file.read(16)
        if not beginning:
            return "empty"
        file.seek(0)
        try:
            picture = Image.open(file)
        except UnidentifiedImageError:
            return f"not an image (it begins with {beginning!r})"
        if not _is_whole(file, picture.format):
            picture.load()
    except Exception as error:
        # Pillow's plug-ins report a broken file by whatever exception comes up: OSError, IndexError, SyntaxError and others.
        return f"unreadable ({error})"
    return None


def _is_whole(file: BinaryIO, format: str) -> bool:
    if format not in END_MARKERS:
        return True
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - TAIL))
    return END_MARKERS[format] in file.read()
