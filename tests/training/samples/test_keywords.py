import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from m2c.training.samples.keywords import DETERMINERS, FUNCTION_WORDS, find_keywords


def keywords(caption: str) -> list[str]:
    return [caption[start:end] for start, end in find_keywords(caption)]


@pytest.mark.parametrize(
    ("caption", "expected"),
    [
        ("a cat on the mat", ["a cat", "the mat"]),
        ("A Big Red Circle at the TOP left", ["A Big Red Circle", "the TOP left"]),
        ("two dogs, one cat and the man's well-known hat", ["dogs", "cat", "the man", "well-known hat"]),
        ("red, green circle", ["red", "green circle"]),
        ("red ❤ circle", ["red", "circle"]),
        ("red  \t circle", ["red  \t circle"]),
        ("3 * $5 stars of * and $", ["stars"]),
        ("there is no square", ["square"]),
        # A verb counts as content, and joins what LinCIR masks apart.
        ("a man riding a horse", ["a man riding a horse"]),
        ("中文。é", ["中文", "é"]),
        ("red\x00circle_big", ["red", "circle", "big"]),
        # Nothing to mask.
        ("", []),
        ("is it", []),
        ("the", []),
        ("this isn't an", []),
        ("12 34", []),
        ("❤ . * \ud800", []),
    ],
)
def test_keywords(caption, expected):
    assert keywords(caption) == expected


# Texts that are likely to have everything in them, besides texts of anything.
PIECES = st.sampled_from(["the", "A", "red", "Circle", "of", "isn't", "7", " ", "  ", "-", ",", "*", "$", "❤", "é", "\n", "_"])
TEXTS = st.text() | st.lists(PIECES).map("".join) | st.lists(PIECES).map(" ".join)


@given(TEXTS)
@example("a red circle" * 1000)
def test_any_text(caption):
    """Keywords are apart, and each is a run of words with a content word; between them is at least one thing that is none."""
    end = 0
    for number, (start, stop) in enumerate(find_keywords(caption)):
        assert end <= start < stop <= len(caption)
        between = caption[end:start]
        assert number == 0 or not (between == "" or between.isspace())
        words = caption[start:stop].split()
        assert all(word.replace("-", "").isalnum() for word in words)
        assert not {word.lower() for word in words} <= DETERMINERS | FUNCTION_WORDS
        end = stop


@given(TEXTS)
def test_nothing_of_content_is_left(caption):
    rest, end = "", 0
    for start, stop in find_keywords(caption):
        rest, end = f"{rest}{caption[end:start]} , ", stop
    assert find_keywords(rest + caption[end:]) == []


def test_the_lists_are_of_two_kinds():
    assert not DETERMINERS & FUNCTION_WORDS
    assert all(word.islower() and word.isalpha() for word in DETERMINERS | FUNCTION_WORDS)
