"""Names of others come through Markdown as they are."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from hub_cards.rendering import code, count, figure, render, repository, setting


def cells(markdown: str) -> list[list[tuple[str, str]]]:
    """The kind and content of what is in each cell of the tables, as a reader of Markdown finds it."""
    tokens = MarkdownIt("commonmark").enable("table").parse(markdown)
    inline = [token for before, token in pairwise(tokens) if before.type == "td_open"]
    return [[(child.type, child.content) for child in token.children] for token in inline]


@given(st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=40))
def test_a_code_span_holds_any_text(text):
    table = f"| a | b |\n|---|---|\n| {code(text)} | {code('next')} |\n"
    first, second = cells(table)
    printable = "".join(letter if letter.isprintable() else " " for letter in text)
    assert second == [("code_inline", "next")]
    assert [kind for kind, _ in first] == ["code_inline"]
    assert first[0][1].strip() == printable.strip()


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0002, "0.0002"),
        (True, "yes"),
        (False, "no"),
        (None, "none"),
        ([3, 7, 9], "3, 7, 9"),
        ([], "none"),
        (["a", "b"], "`a`, `b`"),
        ("bf16", "`bf16`"),
        ({"a": 1}, '`{"a": 1}`'),
    ],
)
def test_settings(value, text):
    assert setting({"name": value}, "name") == text
    assert setting({"other": value}, "name") == "not recorded"


def test_numbers():
    assert count(1234567) == "1,234,567" and figure(12.3456) == "12.35" and figure(7) == "7.00"
    for nothing in (None, float("nan"), float("inf"), "12", True):
        assert count(nothing) == figure(nothing) == "missing"


def test_names():
    assert repository("you/model") == "[you/model](https://huggingface.co/you/model)"
    assert repository("you/data", "datasets/") == "[you/data](https://huggingface.co/datasets/you/data)"
    assert repository("stage1") == "`stage1`" and repository(None) == "not recorded"
    assert repository("[x](http://evil)/y") == "`[x](http://evil)/y`"


def test_a_template_cannot_lack_a_value():
    with pytest.raises(Exception, match="'model' is undefined"):
        render("training.md")
