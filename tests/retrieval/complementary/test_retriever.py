import hashlib

import pytest
import torch
from PIL import Image
from torch.nn.functional import normalize

from m2c.checkpoints import load_model, load_processor
from m2c.retrieval.complementary import ComplementaryRetriever, Fusion, Writer, with_added
from m2c.retrieval.composed import ComposedRetriever
from m2c.retrieval.editing import Editor


NAMES = list("abcdef")


@pytest.fixture
def make_retriever(injecting, captioner, make_chat, store):
    model, processor = load_model(injecting).eval(), load_processor(injecting)

    def make(fusion: Fusion | None = None) -> ComplementaryRetriever:
        writer = Writer(captioner, Editor(make_chat(), "scenes"), store, count=2, say=lambda _: None)
        return ComplementaryRetriever(model, processor, writer, fusion)

    return make


@pytest.fixture
def pictures(picture):
    return [picture(seed) for seed in range(6)]


def test_the_composed_query_alone_is_the_plain_retriever(make_retriever, pictures, monkeypatch):
    retriever = make_retriever(Fusion(0, 1, 0))
    monkeypatch.setattr("m2c.retrieval.complementary.retriever.with_added", lambda texts, added, benchmark: texts)
    plain = ComposedRetriever(retriever.model, retriever.processor)
    for one in (retriever, plain):
        one.add(pictures, NAMES)
    assert retriever.search(pictures[:2], ["is red", ""], k=3) == plain.search(pictures[:2], ["is red", ""], k=3)


@torch.no_grad()
def test_scores_are_the_fusion_of_the_parts(make_retriever, pictures):
    retriever = make_retriever(Fusion(0.5, 0.3, 0.2))
    retriever.add(pictures, NAMES)
    model, processor, writer = retriever.model, retriever.processor, retriever.writer

    def texts(values):
        return normalize(model.get_text_features(**processor(text=values, return_tensors="pt")).pooler_output, dim=-1)

    images = normalize(model.get_image_features(**processor(images=pictures, return_tensors="pt")).pooler_output, dim=-1)
    captions = retriever._captions(pictures)
    edits = writer.edits(captions[:1], ["is red"])
    asked = with_added(["is red"], edits.added, "scenes")
    composed = model.get_composed_features(**processor(images=pictures[:1], text=asked, return_tensors="pt")).pooler_output
    query = 0.5 * texts(edits.edited[0]).mean(dim=0) + 0.3 * normalize(composed, dim=-1)[0] + 0.2 * images[0]
    gallery = 0.8 * images + 0.2 * torch.stack([texts(own).mean(dim=0) for own in captions])
    expected = (gallery @ query).topk(6)
    (found,) = retriever.search(pictures[:1], ["is red"], k=6)
    assert [match.name for match in found] == [NAMES[column] for column in expected.indices]
    assert [match.score for match in found] == pytest.approx(expected.values.tolist(), abs=1e-5)


def test_a_gallery_without_weight_for_captions_is_not_captioned(make_retriever, pictures, captioner):
    retriever = make_retriever(Fusion(0.5, 0.3, 0))
    retriever.add(pictures, NAMES)
    assert captioner.asked == []
    retriever.search(pictures[:1], ["is red"])
    assert len(captioner.asked) == 2


def test_captions_of_a_file_are_those_of_m2c_caption(make_retriever, pictures, captioner, tmp_path):
    pictures[0].save(tmp_path / "a.png")
    make_retriever().add([tmp_path / "a.png"], ["a"])
    assert {digest for digest, _ in captioner.asked} == {hashlib.sha256((tmp_path / "a.png").read_bytes()).hexdigest()}


def test_pictures_that_look_alike_are_one_and_others_are_not(make_retriever, captioner):
    red = Image.new("P", (8, 8))
    red.putpalette([255, 0, 0])
    blue = red.copy()
    blue.putpalette([0, 0, 255])
    make_retriever().add([red, blue, red.convert("RGB")], ["red", "blue", "red again"])
    assert len({digest for digest, _ in captioner.asked}) == 2


def test_no_queries_no_answers_and_a_missing_file_is_named(make_retriever, pictures, tmp_path):
    retriever = make_retriever()
    retriever.add(pictures, NAMES)
    assert retriever.search([], []) == []
    with pytest.raises(ValueError, match=r"missing\.png cannot be read"):
        retriever.search([tmp_path / "missing.png"], ["is red"])
