import pytest
from datasets import Dataset

from m2c.data.benchmarks import QUERY_FEATURES, make_query
from m2c.evaluation.query_texts import query_texts


def queries(*captions: list[str], concept: str | None = None) -> Dataset:
    rows = [make_query(str(row), "a", list(given), "b", shared_concept=concept) for row, given in enumerate(captions)]
    return Dataset.from_list(rows, features=QUERY_FEATURES)


def test_two_captions_are_joined_either_way_or_both():
    given = queries(["is red", "has no sleeves"], ["is longer", "is darker"])
    forward = ["is red and has no sleeves", "is longer and is darker"]
    backward = ["has no sleeves and is red", "is darker and is longer"]
    assert query_texts(given, "first-second", False) == [forward]
    assert query_texts(given, "second-first", False) == [backward]
    assert query_texts(given, "both", False) == [forward, backward]


def test_what_surrounds_each_of_two_captions_is_stripped():
    given = queries(["  is red. ", "is it longer?,"], ["...is a v. neck, in black.", "no change, really?"])
    assert query_texts(given, "first-second", False) == [
        ["is red and is it longer", "is a v. neck, in black and no change, really"]
    ]


def test_a_blank_caption_of_two_is_joined_all_the_same():
    """As the evaluation code of SEARLE and LinCIR does it."""
    assert query_texts(queries(["is green", " ."]), "first-second", False) == [["is green and "]]


@pytest.mark.parametrize("caption", ["is red.", " two spaces  inside. ", "what is it?", "", ",", "* and *", "costs $1", "🐱 ."])
@pytest.mark.parametrize("joining", ["first-second", "second-first", "both"])
def test_a_single_caption_is_asked_once_and_as_it_stands(caption, joining):
    assert query_texts(queries([caption], [caption]), joining, False) == [[caption, caption]]


def test_stars_dollars_and_emoji_survive_joining():
    given = queries(["a * here", r"$5 \1 {text}"], ["🐱🏽", "🇫🇷 flag."])
    assert query_texts(given, "both", False) == [
        [r"a * here and $5 \1 {text}", "🐱🏽 and 🇫🇷 flag"],
        [r"$5 \1 {text} and a * here", "🇫🇷 flag and 🐱🏽"],
    ]


def test_one_and_two_captions_may_be_mixed():
    given = queries(["is red."], ["is longer.", "is darker"])
    assert query_texts(given, "both", False) == [
        ["is red.", "is longer and is darker"],
        ["is red.", "is darker and is longer"],
    ]


def test_the_shared_concept_follows_the_text_only_when_asked_for():
    given = queries(["has two dogs"], concept="a park")
    assert query_texts(given, "both", False) == [["has two dogs"]]
    assert query_texts(given, "both", True) == [["has two dogs, a park"]]
    assert query_texts(queries(["is red", "is longer"], concept="a dress"), "both", True) == [
        ["is red and is longer, a dress"],
        ["is longer and is red, a dress"],
    ]


def test_a_query_without_shared_concept_keeps_its_text():
    assert query_texts(queries(["has two dogs"]), "both", True) == [["has two dogs"]]
    assert query_texts(queries(["has two dogs"], concept=""), "both", True) == [["has two dogs"]]
