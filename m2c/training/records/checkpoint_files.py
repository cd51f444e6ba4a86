"""Folders of checkpoints: there as a whole or not at all, and recognised when the disk has damaged them."""

import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

from m2c.whole_files import PARTIAL


MANIFEST = "manifest.json"


def checkpoint_folder(output_dir: str | Path, step: int) -> Path:
    return Path(output_dir, "checkpoints", f"step_{step:06d}")


def checkpoints_in(output_dir: str | Path) -> list[Path]:
    """All that are complete, the newest first."""
    found = Path(output_dir, "checkpoints").glob("step_*")
    return sorted((path for path in found if re.fullmatch(r"step_\d+", path.name)), key=step_of, reverse=True)


def step_of(folder: Path) -> int:
    return int(folder.name.removeprefix("step_"))


def partial_of(folder: Path) -> Path:
    """Where a checkpoint is written, and where one is moved that is to be removed."""
    return folder.with_name(folder.name + PARTIAL)


def complete(folder: Path) -> None:
    """Gives the files in `partial_of(folder)` a manifest, sees them to the disk, and gives the folder its name."""
    partial = partial_of(folder)
    paths = sorted(path for path in partial.rglob("*") if path.is_file())
    manifest = partial / MANIFEST
    manifest.write_text(json.dumps({str(path.relative_to(partial)): _describe(path) for path in paths}, indent=2) + "\n")
    for path in (*paths, manifest):
        with open(path, "rb") as file:
            os.fsync(file.fileno())
    partial.rename(folder)


def damage_of(folder: Path) -> str | None:
    """What is wrong with a checkpoint, for a message; `None` if every file is as it was written."""
    try:
        files = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return f"it has no {MANIFEST}"
    except ValueError:
        return f"{MANIFEST} cannot be read"
    for name, written in files.items():
        path = folder / name
        if not path.is_file():
            return f"{name} is missing"
        if _describe(path) != written:
            return f"{name} is not what was written"
    return None


def newest_whole(output_dir: str | Path, warn: Callable[[str], None]) -> Path | None:
    """The newest checkpoint without damage; `None` if there is none at all.

    Raises:
        ValueError: if there are some, but all are damaged.
    """
    found = checkpoints_in(output_dir)
    for folder in found:
        damage = damage_of(folder)
        if damage is None:
            return folder
        warn(f"the checkpoint {folder} is damaged: {damage}. The one before is taken")
    if found:
        raise ValueError(f"every checkpoint in {found[0].parent} is damaged; remove them all to begin again")
    return None


def remove(folder: Path) -> None:
    """Removes a checkpoint; when this is cut short, what is left does not look like one."""
    folder.rename(partial_of(folder))
    shutil.rmtree(partial_of(folder))


def keep_newest(output_dir: str | Path, count: int) -> None:
    for old in checkpoints_in(output_dir)[count:]:
        remove(old)


def remove_leftovers(output_dir: str | Path) -> None:
    """Removes what killed runs were about to write, or to remove."""
    for partial in Path(output_dir, "checkpoints").glob(f"step_*{PARTIAL}"):
        shutil.rmtree(partial)


def _describe(path: Path) -> dict[str, int | str]:
    with open(path, "rb") as file:
        return {"bytes": path.stat().st_size, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}
