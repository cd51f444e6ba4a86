import pytest

from m2c.retrieval.text_store import CAPTION, EDITED_CAPTION, Text, TextStore, say_other_revisions


OURS = {"model": "ana/blip", "revision": "b" * 40, "temperature": 1.0, "prompt": None}
OLDER = {**OURS, "revision": "a" * 40}


@pytest.fixture
def said(tmp_path):
    """What is said of a store with so many texts of each generator and kind."""

    def say_of(*written: tuple[dict, str, int], asked: dict = OURS) -> list[str]:
        store, lines = TextStore(tmp_path / "texts.sqlite"), []
        for generator, kind, count in written:
            store.add(Text(kind, generator, {"image": "ab", "number": number}, "a dog") for number in range(count))
        say_other_revisions(store, CAPTION, asked, "--revision", lines.append)
        return lines

    return say_of


def test_texts_of_another_revision_are_named_with_the_option_that_finds_them(said):
    (line,) = said((OLDER, CAPTION, 1500), (OURS, CAPTION, 3))
    assert line.startswith(f"caption: 1,500 of ana/blip with these settings are from revision {'a' * 40}, not {'b' * 40}; ")
    assert f"--revision {'a' * 40} finds them" in line


def test_each_other_revision_has_its_line(said):
    assert len(said((OLDER, CAPTION, 2), ({**OURS, "revision": "c" * 40}, CAPTION, 1))) == 2


def test_of_a_folder_no_option_is_advised(said):
    """As its files decide, which have changed."""
    (line,) = said(({**OURS, "revision": "c" * 64}, CAPTION, 1), asked={**OURS, "revision": "d" * 64})
    assert line.endswith("; those of other files are not used")


@pytest.mark.parametrize(
    "written",
    [
        (OURS, CAPTION),
        ({**OLDER, "temperature": 0.5}, CAPTION),
        ({**OLDER, "model": "ana/other"}, CAPTION),
        (OLDER, EDITED_CAPTION),
    ],
    ids=["this revision", "other settings", "another model", "another kind"],
)
def test_nothing_is_said_of_texts_that_no_revision_would_find(said, written):
    assert said((*written, 2)) == []


def test_of_models_without_revisions_nothing_is_said(said):
    assert said(({"model": "stub", "seed": 1}, CAPTION, 2), asked={"model": "stub"}) == []
