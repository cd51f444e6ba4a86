"""A card that nobody touched is known from one that somebody wrote in."""

import pytest
from huggingface_hub import DatasetCard, ModelCard
from hypothesis import example, given
from hypothesis import strategies as st

from hub_cards import render_card, render_dataset_card, write_card
from hub_cards.signature import is_handwritten, sign
from m2c.data import scenes
from m2c.data.image_folder import write_image_folder


METADATA = "---\nlicense: mit\ntags: [m2c]\n---\n"


@given(st.text())
@example("two\r\nlines")
def test_what_was_signed_is_not_handwritten(text):
    assert not is_handwritten(sign(text)) and not is_handwritten(sign(text).replace("\n", "\r\n") + "\n")


@given(st.text(), st.text(st.characters(categories=("L", "N")), min_size=1))
def test_a_word_more_is_seen(text, word):
    signed = sign(f"# A model\n{text}")
    assert is_handwritten(f"{word}{signed}") and is_handwritten(f"{signed}{word}")
    assert is_handwritten(signed.replace("# A model", f"# A model {word}", 1))
    assert is_handwritten(signed.partition("<!-- m2c")[0])


@pytest.mark.parametrize(
    ("card", "expected"),
    [
        ("", False),
        ("\n", False),
        (METADATA, False),
        (METADATA.replace("\n", "\r\n"), False),
        ("---\n---\n", False),
        (f"{METADATA}\n# My model\n", True),
        ("# My model\n", True),
        ("It has no metadata\n---\nbut a line.", True),
    ],
)
def test_metadata_alone_is_nobodys(card, expected):
    assert is_handwritten(card) == expected


def test_cards_of_models(folders, tmp_path):
    """As they are rendered, as the Hub's own classes write them again, and after somebody changed the licence on the Hub."""
    for kind, folder in folders.items():
        card = render_card(folder, f"you/{kind}")
        card.save(tmp_path / "README.md")
        assert not is_handwritten(str(card)) and not is_handwritten((tmp_path / "README.md").read_text())
        assert not is_handwritten(str(ModelCard.load(tmp_path / "README.md")))
        changed = ModelCard(str(card))
        changed.data.license = "other"
        assert is_handwritten(str(changed))


def test_cards_of_data_sets(tmp_path):
    card = render_dataset_card(write_image_folder(scenes.triplets(2), tmp_path / "triplets"), "you/triplets", "mit")
    assert not is_handwritten(str(card)) and not is_handwritten(str(DatasetCard(str(card))))


def test_names_of_all_kinds(copy_of, write_json, record_of_training, hostile):
    folder = copy_of("base")
    write_json(folder / "training.json", record_of_training(model=hostile, dataset=hostile))
    assert not is_handwritten(write_card(folder).read_text(encoding="utf-8"))
