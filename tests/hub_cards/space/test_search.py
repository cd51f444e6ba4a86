"""The search of a Space answers as its model does."""

import shutil

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from hub_cards.space.template.search import Searcher


@pytest.fixture(scope="module")
def searcher(space, parts) -> Searcher:
    return Searcher(*parts, load_file(space / "gallery.safetensors"), space / "gallery")


@pytest.mark.parametrize("text", ["is red", ""])
def test_the_ranking_is_that_of_the_model(space, searcher, ranking, tmp_path, text):
    """For a picture of one's own; without words it is a query for the picture as it is."""
    Image.linear_gradient("L").convert("RGB").resize((50, 70)).save(tmp_path / "mine.png")
    answers, direct = searcher(tmp_path / "mine.png", text, count=200), ranking(tmp_path / "mine.png", text)
    assert [answer.picture for answer in answers] == [space / "gallery" / name for name, _ in direct] and len(answers) == 120
    scores = [torch.tensor([score for _, score in direct]), torch.tensor([answer.score for answer in answers])]
    torch.testing.assert_close(*scores, atol=1e-5, rtol=1e-5)
    assert searcher(tmp_path / "mine.png", text) == answers[:12]


def test_a_reference_of_the_gallery_is_no_answer_to_itself(searcher, ranking, tmp_path):
    """Also if it comes back by another name, as uploads do."""
    picture = searcher.pictures[7]
    upload = shutil.copyfile(picture, tmp_path / "image.webp")
    expected = [name for name, _ in ranking(picture, "is small") if name != picture.name]
    for reference in (picture, upload):
        answers = searcher(reference, "is small", count=200)
        assert [answer.picture.name for answer in answers] == expected and len(answers) == 119


def test_a_picture_that_was_deleted_is_not_found(space, parts, ranking, tmp_path):
    folder = shutil.copytree(space / "gallery", tmp_path / "gallery")
    reference, best = min(folder.iterdir()), 1
    (folder / ranking(reference, "")[best][0]).unlink()
    searcher = Searcher(*parts, load_file(space / "gallery.safetensors"), folder)
    expected = [name for name, _ in ranking(reference, "") if (folder / name).exists() and name != reference.name]
    assert [answer.picture.name for answer in searcher(reference, "", count=200)] == expected and len(expected) == 118


def test_what_cannot_be_searched_is_said(parts, searcher, tmp_path):
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"\x89PNG\r\n")
    with pytest.raises(ValueError, match="Choose a reference picture first"):
        searcher(None, "is red")
    with pytest.raises(ValueError, match="cannot be read as a picture") as failure:
        searcher(broken, "is red")
    assert str(tmp_path) not in str(failure.value)
    with pytest.raises(ValueError, match="The gallery is empty"):
        Searcher(*parts, {}, tmp_path)(searcher.pictures[0], "is red")
