"""No path of this machine is left in what is published, and nothing else is touched."""

import json
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub_cards.publishable import names_path, names_path_of_machine, publishable


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("/home/me/data/pairs", "pairs"),
        ("/home/me/my data/pairs/", "pairs"),
        ("~/pairs", "pairs"),
        (r"C:\Users\me\pairs", "pairs"),
        (r"\\server\share\pairs", "pairs"),
        ("/data", "data"),
        ("loaded from /home/me/pairs, twice", "loaded from pairs, twice"),
        ("'/home/me/pairs'", "'pairs'"),
        ("file:///home/me/pairs", "pairs"),
        ("model:/home/me/pairs", "model:pairs"),
        ("--root=~/me/pairs", "--root=pairs"),
    ],
)
def test_paths_shrink(value, expected):
    assert publishable(value) == expected
    assert publishable({"a": [value, {value: 1}]}) == {"a": [expected, {expected: 1}]}


@pytest.mark.parametrize(
    "value",
    [
        "openai/clip-vit-large-patch14",
        "https://huggingface.co/you/model/blob/main/record.json",
        "see https://arxiv.org/abs/2504.17990",
        "https://shop.example/cat?back=/women/tops/red (or s3://bucket/women=/tops/red)",
        "a photo of * that {text}",
        "black and/or white, 1/2 inch",
        "evaluation/cirr-val.json",
        "/",
        "/</w>",
        "//",
        "🦊",
        "",
        None,
        True,
        3,
        0.5,
    ],
)
def test_other_values_stay(value):
    assert publishable(value) == value and type(publishable(value)) is type(value)


# What people write about pictures; the folders are none of any machine.
WORDS = [
    "a /b/c",
    "/b/c",
    "men's w/ 3/4 sleeve /top",
    "in blue /green /red/ or (/pink/)",
    "/s/ is longer than /that/one/",
    "/run for it",
    r"is \alpha\beta times as big",
    "C: a cup, D:/x/y",
    "see https://shop.example/home/user/top.jpg, or [here](https://x.example/a,b?to=/tmp/red)",
    "//cdn.example/pictures/1.png",
    "~/~ / \\ //",
    "\0/a/b",
    f"/{'long' * 100}/b",
]


@pytest.mark.parametrize("text", WORDS)
def test_words_of_people_name_no_path(text):
    assert not names_path_of_machine(text)


@pytest.mark.parametrize(
    "path",
    [
        *(f"/{folder}/pairs" for folder in ("home/me", "root", "mnt/disk", "data")),
        "/Users/me/my pairs/red.png",
        "~/pairs/red.png",
        r"C:\Users\me\pairs",
        r"E:\pairs\red.png",
        "C:/Users/me/pairs",
        r"\\server\share\pairs",
        "file:///home/me/pairs",
    ],
)
def test_paths_of_machines_are_known_among_words(path, tmp_path):
    """Those of most machines, and of this one: below whatever lies at its root."""
    for place in (path, str(tmp_path / "red.png"), f"{Path.cwd()}/red.png"):
        assert names_path_of_machine(place) and names_path(place)
        if " " not in place:
            assert names_path_of_machine(f"a red dress, from {place}")
    assert names_path("/nowhere/x.png") and not names_path_of_machine("/nowhere/x.png")


FOLDER = st.text(st.characters(categories=("L", "N")), min_size=2, max_size=8)


SENTENCES = st.sampled_from(["{}", "a {} b", "x={}", '"{}"'])
TEXT = st.text(st.characters(exclude_characters="/\\~"))
KEYS = st.text(st.characters(categories=("L",)), max_size=3)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | TEXT, lambda inner: st.lists(inner) | st.dictionaries(KEYS, inner)
)


@given(st.lists(FOLDER, min_size=2, max_size=5), st.sampled_from(["", "~", "D:"]), SENTENCES)
def test_no_folder_is_left_of_a_path(folders, root, sentence):
    path = root + "/" + "/".join(folders)
    found = publishable(sentence.format(path))
    assert path not in found and "/" not in found and found == sentence.format(folders[-1])


@given(VALUES)
def test_what_holds_no_path_can_be_written(value):
    found = publishable(value)
    assert json.loads(json.dumps(found, ensure_ascii=False).encode("utf-8")) == found
    if not re.search("[\ud800-\udfff]", json.dumps(value, ensure_ascii=False)):
        assert found == value
