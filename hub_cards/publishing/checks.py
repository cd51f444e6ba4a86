"""What must not be sent to the Hub: pickles, secrets, paths of one machine, pictures without a licence."""

import json
import mmap
import re
from collections.abc import Iterator
from pathlib import Path

from hub_cards.publishable import names_path, names_path_of_machine
from m2c.data import picture_files

from .hidden_texts import hidden_texts, holds_words
from .secrets import find_secrets, without_secrets


# These should be texts; of all else texts are what can be read as one.
TEXTS = {".csv", ".json", ".jsonl", ".md", ".py", ".txt", ".yaml", ".yml"}
# Rows of data, in which people may have written whatever they like.
ROWS = {".csv", ".jsonl", ".tsv"}
# In these, only what stands in quotes is text.
QUOTED = {".jsonl", ".py"}
# Words of a tokenizer may begin with a slash.
VOCABULARIES = {"merges.txt", "tokenizer.json", "vocab.json"}
# Drawn from figures, so nobody's picture.
PLOTS = {"learning_curves.png"}
PICTURES = picture_files.SUFFIXES | picture_files.UNREADABLE_SUFFIXES
# Any bytes may stand at their beginning, and nothing in them is executed.
DATA = {".arrow", ".parquet", ".safetensors"}
# What torch.save and pickle write: a zip archive, or the mark of a pickle's protocol.
PICKLE_SUFFIXES = {".bin", ".ckpt", ".joblib", ".npy", ".npz", ".pickle", ".pkl", ".pt", ".pth"}
PICKLE_STARTS = (b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")
JSON_STRING = re.compile(r'"(?:[^"\\]|\\.)*"')
REMEDY = "write what it stands for"


def refuse_problems(staged: Path, folder: Path | str, pictures_licence: str | None) -> None:
    """Raises `ValueError` with all of [`find_problems`] in what is to be sent of `folder`."""
    if problems := find_problems(staged, pictures_licence):
        raise ValueError("\n- ".join([f"{folder} must not be published as it is:", *problems]))


def find_problems(folder: Path, pictures_licence: str | None) -> list[str]:
    """Reasons not to publish the files of a folder, each on a line with the file's name and the remedy.

    A secret is never repeated, whether it is in a file or in the name of one.

    Args:
        folder: holds no links.
        pictures_licence: under which the pictures in it are published, `None` if nobody named one.
    """
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    found = [f"{path.relative_to(folder)} {problem}" for path in paths for problem in _of_file(path)]
    pictures = [path for path in paths if path.suffix.lower() in PICTURES and path.name not in PLOTS]
    if pictures and not pictures_licence:
        first = pictures[0].relative_to(folder)
        remedy = "name theirs with --pictures-licence, or remove the pictures"
        found.append(f"{first}, one of {len(pictures)} pictures, has no licence of its own; {remedy}")
    return [" ".join(without_secrets(line).split()) for line in found]


def _of_file(path: Path) -> Iterator[str]:
    suffix = path.suffix.lower()
    if suffix in PICKLE_SUFFIXES or _starts_as_pickle(path):
        yield "is a pickle, or looks like one, and runs code when it is loaded; save it as safetensors, or remove it"
    secrets = find_secrets(_bytes(path.name)) + _secrets_in(path)
    if suffix in (".parquet", ".safetensors"):
        try:
            parts = list(_of_parts(path))
        except ValueError:
            yield f"is no complete {suffix[1:]} file; write it anew"
        else:
            secrets += [secret for _, found, _ in parts for secret in found]
            if named := sorted({place for place, _, has_path in parts if has_path}):
                yield f"names a path of one machine in {', '.join(named)}; {REMEDY}"
    elif suffix not in DATA | picture_files.SUFFIXES:
        try:
            lines = path.read_text(encoding="utf-8").split("\n")
        except UnicodeDecodeError:
            if suffix in TEXTS:
                yield "is not UTF-8; write it anew"
        else:
            secrets += find_secrets(_bytes("\n".join(text for line in lines for text in _unescaped(line))))
            yield from _paths_in(path, lines)
    if secrets:
        yield f"holds what looks like {', '.join(sorted(set(secrets)))}; remove it, and revoke it if others may have seen it"


def _of_parts(path: Path) -> Iterator[tuple[str, list[str], bool]]:
    """For each part of a binary file its place, kinds of secrets in it, and whether a path of one machine is."""
    for place, values in hidden_texts(path):
        contents = [value if isinstance(value, bytes) else _bytes(value) for value in values]
        has_path = names_path_of_machine if holds_words(place) else names_path
        yield place, find_secrets(b"\n".join(contents)), any(has_path(_decoded(content)) for content in contents)


def _decoded(content: bytes) -> str:
    """Nothing of what is no text, such as a picture."""
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError:
        return ""


def _starts_as_pickle(path: Path) -> bool:
    with open(path, "rb") as file:
        return path.suffix.lower() not in DATA and file.read(4).startswith(PICKLE_STARTS)


def _secrets_in(path: Path) -> list[str]:
    if path.stat().st_size == 0:
        return []  # mmap refuses empty files
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return find_secrets(content)


def _paths_in(path: Path, lines: list[str]) -> Iterator[str]:
    if path.name in VOCABULARIES:
        return
    numbers = [number for number, line in enumerate(lines, 1) if _names_path(line, path.suffix.lower())]
    if numbers:
        yield f"names a path of one machine in line {', '.join(map(str, numbers[:3]))}; {REMEDY}"


def _names_path(line: str, suffix: str) -> bool:
    has_path = names_path_of_machine if suffix in ROWS else names_path
    # What stands in quotes may be a path as a whole, or a text that names one. So may a line, with a space before it as it is
    # no path itself.
    texts = [] if suffix in QUOTED else [f" {line}"]
    return any(map(has_path, (*texts, *_unescaped(line))))


def _unescaped(line: str) -> Iterator[str]:
    """What is in quotes on a line of JSON. Its strings never go on to the next line."""
    for found in JSON_STRING.findall(line):
        try:
            yield _bytes(json.loads(found)).decode("utf-8")
        except ValueError:
            continue


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "replace")
