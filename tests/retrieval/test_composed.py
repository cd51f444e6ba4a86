import pytest
import torch
from torch.nn.functional import normalize

from m2c.checkpoints import load_model, load_processor
from m2c.retrieval.composed import ComposedRetriever


@pytest.fixture
def retriever(injecting):
    return ComposedRetriever(load_model(injecting).eval(), load_processor(injecting), batch_size=4)


@pytest.fixture
def pictures(picture):
    return [picture(seed) for seed in range(9)]


@torch.no_grad()
def test_answers_are_those_of_the_model_s_features(retriever, pictures):
    names = list("abcdefghi")
    retriever.add(pictures[:5], names[:5])
    retriever.add(pictures[5:], names[5:])
    texts = ["make the circle blue", "no square"]
    found = retriever.search(pictures[:2], texts, k=3)
    model, processor = retriever.model, retriever.processor
    gallery = normalize(model.get_image_features(**processor(images=pictures, return_tensors="pt")).pooler_output, dim=-1)
    inputs = processor(images=pictures[:2], text=texts, return_tensors="pt")
    scores = normalize(model.get_composed_features(**inputs).pooler_output, dim=-1) @ gallery.T
    for row, matches in zip(scores, found):
        expected = row.topk(3)
        assert [match.name for match in matches] == [names[column] for column in expected.indices]
        assert [match.score for match in matches] == pytest.approx(expected.values.tolist(), abs=1e-5)


def test_the_reference_can_be_left_out(retriever, pictures):
    retriever.add(pictures, list("abcdefghi"))
    every = retriever.search(pictures[:2], ["", ""], k=9, without=["a", None])
    assert [len(matches) for matches in every] == [8, 9]
    assert "a" not in {match.name for match in every[0]}
    with pytest.raises(ValueError, match="'z' is to be left out, but is not in the gallery"):
        retriever.search(pictures[:1], [""], without=["z"])


def test_files_and_images_are_the_same(retriever, pictures, tmp_path):
    pictures[0].save(tmp_path / "a.png")
    retriever.add([pictures[0], tmp_path / "a.png"], ["image", "file"])
    assert torch.equal(retriever.gallery[0], retriever.gallery[1])
    first, second = (retriever.search([reference], ["is red"])[0] for reference in (pictures[0], str(tmp_path / "a.png")))
    assert first == second


def test_what_cannot_be_searched_is_said(retriever, pictures, tmp_path):
    with pytest.raises(ValueError, match="the gallery is empty"):
        retriever.search(pictures[:1], ["is red"])
    with pytest.raises(ValueError, match="2 pictures and 1 names"):
        retriever.add(pictures[:2], ["a"])
    (tmp_path / "broken.png").write_bytes(b"no picture")
    with pytest.raises(ValueError, match=r"broken\.png cannot be read"):
        retriever.add([pictures[0], tmp_path / "broken.png"], ["a", "b"])
    assert retriever.names == []
    retriever.add(pictures[:2], ["a", "b"])
    with pytest.raises(ValueError, match="some come twice"):
        retriever.add(pictures[2:3], ["b"])
    with pytest.raises(ValueError, match="1 pictures and 2 texts"):
        retriever.search(pictures[:1], ["is red", "is blue"])
    assert len(retriever.gallery) == len(retriever.names) == 2
