import re
from itertools import chain

import pytest
from PIL import Image

from m2c.retrieval.captioning import asking, caption
from m2c.retrieval.text_store import CAPTION, Text, TextStore
from processing_m2c.images import open_image

from .stub import StubCaptioner, caption_of


@pytest.fixture
def make_captioner(tmp_path):
    def make(**fields) -> StubCaptioner:
        return StubCaptioner(tmp_path / "calls", **fields)

    return make


def picture_at(position: int) -> Image.Image:
    return Image.new("RGB", (1, 1))


def fill(store: TextStore, captioner: StubCaptioner, digests, count: int, pictures=picture_at, **fields) -> tuple[list, list]:
    """Captions, and what is said."""
    said = []
    return caption(store, captioner, pictures, list(digests), count, say=said.append, **fields), said


def expected(digests, count: int) -> list[list[str]]:
    return [[caption_of(digest, number) for number in range(count)] for digest in digests]


def test_every_picture_gets_its_captions_in_order(store, make_captioner):
    captioner = make_captioner()
    captions, said = fill(store, captioner, "abcde", 3)
    assert captions == expected("abcde", 3)
    assert said == ["captions: 0 of 15 are there; 15 to write for 5 pictures"]
    assert sorted(captioner.calls) == [(digest, number) for digest in "abcde" for number in range(3)]


def test_only_what_is_missing_is_written(store, make_captioner):
    captioner = make_captioner()
    fill(store, captioner, "abc", 2)
    before = len(captioner.calls)
    assert fill(store, captioner, "cab", 2) == (expected("cab", 2), [])
    assert fill(store, captioner, "cab", 1) == (expected("cab", 1), [])
    assert len(captioner.calls) == before
    captions, said = fill(store, captioner, "bcd", 3)
    assert captions == expected("bcd", 3)
    assert said == ["captions: 4 of 9 are there; 5 to write for 3 pictures"]
    assert sorted(captioner.calls[before:]) == [("b", 2), ("c", 2), ("d", 0), ("d", 1), ("d", 2)]


def test_captions_of_another_captioner_are_others(store, make_captioner):
    captioner, other = make_captioner(), make_captioner()
    other.identity = {"model": "stub", "seed": 1}
    fill(store, captioner, "a", 2)
    before = len(other.calls)
    fill(store, other, "a", 2)
    assert len(other.calls) - before == 2


def test_equal_pictures_are_captioned_once_and_only_missing_ones_are_read(store, make_captioner):
    captioner, read = make_captioner(), []
    store.add(Text(CAPTION, captioner.identity, {"image": "b", "number": number}, f"mine {number}") for number in (0, 1))

    def picture(position: int) -> Image.Image:
        read.append(position)
        return picture_at(position)

    captions, _ = fill(store, captioner, "aba", 2, picture)
    assert captions == [*expected("a", 2), ["mine 0", "mine 1"], *expected("a", 2)]
    assert read == [0]


@pytest.mark.parametrize("one_by_one", [True, False])
def test_what_fails_is_asked_again_counted_and_replaced(store, make_captioner, one_by_one):
    refused = frozenset([("a", 1, 0), ("b", 0, 0), ("b", 0, 1), ("b", 2, 0)])
    captioner = make_captioner(refused=refused, one_by_one=one_by_one)
    captions, said = fill(store, captioner, "abc", 3)
    assert captions == expected("abc", 3)
    assert said[1:] == ["captions: 4 were asked for again"]
    assert len(captioner.calls) == 13


def test_some_that_fail_for_good_are_named_and_the_others_serve(store, make_captioner):
    refused = frozenset(("a", 1, attempt) for attempt in range(asking.TRIES))
    captioner = make_captioner(refused=refused)
    captions, said = fill(store, captioner, "ab", 3, names=["first.png", "second.png"])
    assert captions == [[caption_of("a", 0), caption_of("a", 2)], *expected("b", 3)]
    assert said[1:] == [
        "captions: 2 were asked for again",
        "captions: 1 could not be written; the 1 pictures have others: first.png: no comment",
    ]
    assert captioner.calls.count(("a", 1)) == 3
    captions, _ = fill(store, make_captioner(), "ab", 3)
    assert captions == expected("ab", 3), "the next run asks once more"


def test_pictures_without_any_are_an_error_after_all_others_are_stored(store, make_captioner, picture, tmp_path):
    paths = {name: tmp_path / f"{name}.png" for name in "abcdef"}
    for seed, path in enumerate(paths.values()):
        picture(seed).save(path)
    paths["b"].write_bytes(paths["b"].read_bytes()[:40])
    refused = frozenset(("d", number, attempt) for number in range(2) for attempt in range(asking.TRIES))
    captioner = make_captioner(refused=refused)

    def read(position: int) -> Image.Image:
        return open_image(list(paths.values())[position])

    message = r"2 of 6 pictures have no caption: .*b\.png cannot be read .*; d\.png: no comment\. The others are stored"
    with pytest.raises(ValueError, match=message):
        fill(store, captioner, paths, 2, read, names=[path.name for path in paths.values()])
    assert sorted(text.text for text in store.all()) == sorted(chain(*expected("acef", 2)))
    assert all(digest != "b" for digest, _ in captioner.calls)
    picture(9).save(paths["b"])
    before = len(captioner.calls)
    assert fill(store, make_captioner(), paths, 2, read)[0] == expected("abcdef", 2)
    assert sorted(captioner.calls[before:]) == [("b", 0), ("b", 1), ("d", 0), ("d", 1)]


def test_when_nothing_succeeds_any_more_it_ends(store, make_captioner, monkeypatch):
    monkeypatch.setattr(asking, "HOPELESS", 7)
    digests = [f"p{number}" for number in range(100)]
    refused = frozenset((digest, n, attempt) for digest in digests[4:] for n in range(2) for attempt in range(3))
    captioner = make_captioner(refused=refused)
    with pytest.raises(ValueError, match=r"7 pictures in a row have failed, the last of them p\d+: no comment\. .*is stored"):
        fill(store, captioner, digests, 2)
    assert len(list(store.all())) == 8 and len(captioner.calls) <= 8 + 6 * 2 * 3 + 2 * 2


def test_some_pictures_that_nobody_can_describe_do_not_end_it(store, make_captioner):
    digests = [f"p{number}" for number in range(60)]
    refused = frozenset((digest, n, attempt) for digest in digests[:10] for n in range(15) for attempt in range(asking.TRIES))
    with pytest.raises(ValueError, match=r"10 of 60 pictures have no caption: .*The others are stored"):
        fill(store, make_captioner(refused=refused), digests, 15)
    assert len(list(store.all())) == 50 * 15


def test_a_full_disk_ends_it_and_what_was_written_stays(store, make_captioner):
    resource = pytest.importorskip("resource")
    digests = [f"{number:0200}" for number in range(200)]
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, limits[1]))
    try:
        with pytest.raises(OSError, match=re.escape(str(store.path)) + ".*kept. Make room"):
            fill(store, make_captioner(), digests, 2)
        stored = len(list(store.all()))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert 0 < stored < 400 and stored % 4 == 0
    captioner = make_captioner()
    before = len(captioner.calls)
    captions, said = fill(store, captioner, digests, 2)
    assert captions == expected(digests, 2) and len(captioner.calls) - before == 400 - stored
    assert said == [f"captions: {stored} of 400 are there; {400 - stored} to write for {200 - stored // 2} pictures"]


def test_interrupted_it_keeps_what_it_has(store, make_captioner):
    def picture(position: int) -> Image.Image:
        if position == 5:
            raise KeyboardInterrupt
        return picture_at(position)

    with pytest.raises(KeyboardInterrupt):
        fill(store, make_captioner(), "abcdefgh", 2, picture)
    assert sorted(text.text for text in store.all()) == sorted(chain(*expected("abcd", 2)))
