"""The fusion against the released formula, written out for single pairs."""

import math
import random

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.functional import normalize

from m2c.evaluation.metrics import rank_gallery, rank_subsets
from m2c.retrieval.complementary import PRESETS, ComplementaryFeatures, Fusion, fusion_for, mean_features


def unit(*shape: int, seed: int) -> torch.Tensor:
    return normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed)), dim=-1)


def dot(one: list[float], other: list[float]) -> float:
    return math.fsum(a * b for a, b in zip(one, other))


# alpha, beta, gamma, and whether the mean of a gallery image's captions is brought to unit length.
RELEASED = {"cirr": (0.6, 0.4, 0.2, False), "circo": (0.6, 0.4, 0.2, False), "fashioniq": (0.2, 0.6, 0.1, True)}


@pytest.mark.parametrize("benchmark", RELEASED)
def test_scores_are_those_of_the_released_formula(benchmark):
    edited, composed, reference = unit(4, 3, 16, seed=0), unit(4, 16, seed=1), unit(4, 16, seed=2)
    images, captions = unit(6, 16, seed=3), unit(6, 5, 16, seed=4)
    features = ComplementaryFeatures(edited.mean(dim=1), composed, reference, images, captions.mean(dim=1))
    queries, gallery = features.fuse(fusion_for(benchmark))
    alpha, beta, gamma, is_unit = RELEASED[benchmark]
    for row in range(4):
        for column in range(6):
            f1 = [math.fsum(values) / 3 for values in zip(*edited[row].tolist())]
            query = [
                alpha * a + beta * b + (1 - alpha - beta) * c
                for a, b, c in zip(f1, composed[row].tolist(), reference[row].tolist())
            ]
            caption = [math.fsum(values) / 5 for values in zip(*captions[column].tolist())]
            length = math.sqrt(dot(caption, caption)) if is_unit else 1
            item = [(1 - gamma) * a + gamma * b / length for a, b in zip(images[column].tolist(), caption)]
            assert queries[row] @ gallery[column] == pytest.approx(dot(query, item), abs=1e-6)


def test_the_length_of_a_gallery_item_counts_in_a_product_and_not_in_a_cosine():
    queries, gallery = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.9, 0.1], [2.0, 2.0], [0.5, 0.0]])
    assert rank_gallery(queries, gallery, 3).tolist() == [[2, 0, 1]]
    assert rank_gallery(queries, gallery, 3, is_cosine=False).tolist() == [[1, 0, 2]]
    assert rank_subsets(queries, gallery, [[0, 1]]).tolist() == [[0, 1]]
    assert rank_subsets(queries, gallery, [[0, 1]], is_cosine=False).tolist() == [[1, 0]]


def test_without_weight_captions_of_the_gallery_are_not_needed():
    images = unit(3, 8, seed=0)
    assert torch.equal(Fusion(0.5, 0.5, 0).gallery(images, None), images)
    with pytest.raises(ValueError, match=r"gamma is 0\.2, but the gallery has no captions"):
        Fusion(0.5, 0.5, 0.2).gallery(images, None)


def test_weights_by_name_by_number_and_by_default():
    assert fusion_for("fashioniq") == PRESETS["fashioniq"]
    assert fusion_for("mine") == PRESETS["cirr"]
    assert fusion_for("cirr", "fashioniq") == PRESETS["fashioniq"]
    assert fusion_for("cirr", "0.5, 0.25, 0") == Fusion(0.5, 0.25, 0)
    assert fusion_for("cirr", caption_feature="unit") == Fusion(0.6, 0.4, 0.2, "unit")


@pytest.mark.parametrize("weights", ["", "half", "0.5", "1,2", "0.6,0.6,0", "-0.1,0.5,0", "0.5,0.5,1.1", "nan,0,0", "1,0,0,0"])
def test_weights_that_are_none_are_named(weights):
    with pytest.raises(ValueError, match=r"weights"):
        fusion_for("cirr", weights)


@given(st.lists(st.lists(st.sampled_from("abcdefg"), min_size=1, max_size=6), min_size=1, max_size=8), st.integers(0, 99))
def test_means_are_over_a_thing_s_own_texts_and_each_text_is_encoded_once(texts, seed):
    table, asked = {letter: unit(4, seed=seed + ord(letter)) for letter in "abcdefg"}, []

    def encode(distinct: list[str]) -> torch.Tensor:
        asked.extend(distinct)
        return torch.stack([table[text] for text in distinct])

    means = mean_features(encode, texts)
    assert len(asked) == len(set(asked))
    expected = torch.stack([torch.stack([table[text] for text in own]).mean(dim=0) for own in texts])
    torch.testing.assert_close(means, expected, atol=1e-6, rtol=0)
    order = random.Random(seed).sample(range(len(texts)), len(texts))
    torch.testing.assert_close(mean_features(encode, [texts[row] for row in order]), expected[order], atol=1e-6, rtol=0)
