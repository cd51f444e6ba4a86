"""What must not be sent to the Hub: pickles, secrets, paths of one machine, pictures without a licence."""

import json
import mmap
import re
from collections.abc import Iterator
from pathlib import Path

from huggingface_hub import ModelCard

from hub_cards.publishable import publishable

from .secrets import find_secrets, without_secrets


# The Hub takes no more in one commit.
MOST_FILES = 25_000
TEXTS = {".csv", ".json", ".jsonl", ".md", ".py", ".txt", ".yaml", ".yml"}
# Words of a tokenizer may begin with a slash.
VOCABULARIES = {"merges.txt", "tokenizer.json", "vocab.json"}
PICTURES = {".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"}
# Drawn from figures, so nobody's picture.
PLOTS = {"learning_curves.png"}
# Any bytes may stand at their beginning, and nothing in them is executed.
DATA = {".arrow", ".parquet", ".safetensors"}
# What torch.save and pickle write: a zip archive, or the mark of a pickle's protocol.
PICKLE_SUFFIXES = {".bin", ".ckpt", ".joblib", ".npy", ".npz", ".pickle", ".pkl", ".pt", ".pth"}
PICKLE_STARTS = (b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")
JSON_STRING = re.compile(r'"(?:[^"\\]|\\.)*"')


def find_problems(folder: Path) -> list[str]:
    """Reasons not to publish the files of a folder, each on a line with the file's name and the remedy.

    A secret is never repeated, whether it is in a file or in the name of one.
    """
    paths = sorted(path for path in folder.rglob("*") if path.is_symlink() or path.is_file())
    found = [f"{path.relative_to(folder)} {problem}" for path in paths for problem in _of_file(path)]
    return [without_secrets(line) for line in [*found, *_of_all(folder, paths)]]


def _of_file(path: Path) -> Iterator[str]:
    if path.is_symlink():
        yield "is a link; put the file itself there"
        return
    if path.suffix in PICKLE_SUFFIXES or _starts_as_pickle(path):
        yield "is a pickle, or looks like one, and runs code when it is loaded; save it as safetensors, or remove it"
    secrets = find_secrets(_bytes(path.name)) + _secrets_in(path)
    if path.suffix in TEXTS:
        try:
            lines = path.read_text(encoding="utf-8").split("\n")
        except UnicodeDecodeError:
            yield "is not UTF-8; write it anew"
        else:
            secrets += find_secrets(_bytes("\n".join(text for line in lines for text in _unescaped(line))))
            yield from _paths_in(path, lines)
    if secrets:
        yield f"holds what looks like {', '.join(sorted(set(secrets)))}; remove it, and revoke it if others may have seen it"


def _of_all(folder: Path, paths: list[Path]) -> Iterator[str]:
    if len(paths) > MOST_FILES:
        yield f"there are {len(paths)} files, and the Hub takes {MOST_FILES} at once; write the pictures into parquet files"
    pictures = [path for path in paths if path.suffix.lower() in PICTURES and path.name not in PLOTS]
    card = folder / "README.md"
    licence = ModelCard.load(card, ignore_metadata_errors=True).data.license if card.is_file() else None
    if pictures and not licence:
        first = pictures[0].relative_to(folder)
        yield f"{first}, one of {len(pictures)} pictures, has no licence; name one with --licence, or remove the pictures"


def _starts_as_pickle(path: Path) -> bool:
    with open(path, "rb") as file:
        return path.suffix not in DATA and file.read(4).startswith(PICKLE_STARTS)


def _secrets_in(path: Path) -> list[str]:
    if path.stat().st_size == 0:
        return []  # mmap refuses empty files
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return find_secrets(content)


def _paths_in(path: Path, lines: list[str]) -> Iterator[str]:
    if path.name in VOCABULARIES:
        return
    is_code = path.suffix == ".py"
    numbers = [number for number, line in enumerate(lines, 1) if _names_path(line, is_code)]
    if numbers:
        yield f"names a path of one machine in line {', '.join(map(str, numbers[:3]))}; write what it stands for"


def _names_path(line: str, is_code: bool) -> bool:
    # What stands in quotes may be a path as a whole, or a text that names one. So may a line, with a space before it as it is
    # no path itself; but in code slashes mean much else.
    texts = [] if is_code else [f" {line}"]
    return any(publishable(text) != text for text in (*texts, *_unescaped(line)))


def _unescaped(line: str) -> Iterator[str]:
    """What is in quotes on a line of JSON. Its strings never go on to the next line."""
    for found in JSON_STRING.findall(line):
        try:
            yield _bytes(json.loads(found)).decode("utf-8")
        except ValueError:
            continue


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "replace")
