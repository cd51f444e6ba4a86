"""Triplets with their pictures, pushed and loaded by `datasets`."""

from functools import partial

import pytest
from PIL import Image

from .faults import DropUpload
from .user_code import clear_faults


@pytest.fixture
def pictures(tmp_path):
    for number in range(5):
        Image.new("RGB", (8, 8), (number, 2 * number, 3 * number)).save(tmp_path / f"{number}.png")
    return sorted(tmp_path.glob("*.png"))


def push_triplets(pictures, repo_id, count):
    """References, words and targets of so many triplets."""
    from datasets import Dataset, Features, Image, Value

    features = Features({"reference": Image(), "text": Value("string"), "target": Image()})
    texts = [f"is {number}" for number in range(1, count + 1)]
    rows = {"reference": pictures[:count], "text": texts, "target": pictures[1 : count + 1]}
    return Dataset.from_dict(rows, features=features).push_to_hub(repo_id).oid


def load_triplets(repo_id, **arguments):
    """Of every triplet the words and one pixel of each picture."""
    from datasets import load_dataset

    rows = load_dataset(repo_id, split="train", **arguments)
    return [[row["reference"].getpixel((1, 1)), row["text"], row["target"].getpixel((1, 1))] for row in rows]


def triplets(count: int) -> list:
    return [[[n, 2 * n, 3 * n], f"is {n + 1}", [n + 1, 2 * n + 2, 3 * n + 3]] for n in range(count)]


def test_triplets_travel_with_their_pictures(hub, client, stranger, pictures):
    """Also by revision, and as a stream, which reads them piece by piece."""
    pushing = [partial(push_triplets, pictures=pictures, repo_id="ana/triplets", count=count) for count in (2, 4)]
    first = client.session(*pushing)[0]
    loading = partial(load_triplets, repo_id="ana/triplets")
    old, new, stream = stranger.session(partial(loading, revision=first.value), loading, partial(loading, streaming=True))
    assert old.value == triplets(2) and new.value == stream.value == triplets(4)
    assert 206 in {record.status for record in hub.requests("GET /objects/")}


def test_a_push_that_breaks_off_leaves_the_old_triplets(hub, client, pictures):
    first, second = (partial(push_triplets, pictures=pictures, repo_id="ana/triplets", count=count) for count in (2, 4))
    loading = partial(load_triplets, repo_id="ana/triplets")
    hub.faults.add("PUT /objects/", DropUpload(after_bytes=1000), times=None, skip=1)
    _, failed, old, _, _, new = client.session(first, second, loading, partial(clear_faults), second, loading)
    assert failed.error == "RuntimeError"
    assert old.value == triplets(2) and new.value == triplets(4)
