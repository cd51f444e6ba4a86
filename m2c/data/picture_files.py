"""Pictures as they lie in a folder."""

from pathlib import Path


SUFFIXES = {".avif", ".bmp", ".gif", ".jfif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"}
# Pictures too, which Pillow does not open by itself.
UNREADABLE_SUFFIXES = {".heic", ".heif", ".svg"}


def find_pictures(folder: Path) -> dict[str, Path]:
    """The pictures in a folder and below it, by their paths below it with `/`, in order; hidden files are left out.

    Raises:
        ValueError: if there is no such folder, or no picture in it.
    """
    if not folder.is_dir():
        raise ValueError(f"{folder} is no folder; name a folder of pictures")
    found = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if _is_picture(path, folder)}
    if not found:
        raise ValueError(f"there are no pictures in {folder} (of {', '.join(sorted(SUFFIXES))})")
    return found


def _is_picture(path: Path, folder: Path) -> bool:
    is_hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
    return path.suffix.lower() in SUFFIXES and path.is_file() and not is_hidden
