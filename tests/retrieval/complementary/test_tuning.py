import pytest

from m2c.retrieval.complementary import Fusion, tune_fusion


def test_the_best_weights_of_the_grid_are_found():
    wanted = Fusion(0.3, 0.5, 0.4, "unit")

    def score(fusion: Fusion) -> float:
        same = fusion.caption_feature == wanted.caption_feature
        return same - abs(fusion.alpha - 0.3) - abs(fusion.beta - 0.5) - abs(fusion.gamma - 0.4)

    best, value = tune_fusion(score, has_captions=True)
    assert best == wanted
    assert value == pytest.approx(1)


def test_of_equal_weights_the_cheapest_wins():
    assert tune_fusion(lambda fusion: 1.0, has_captions=True)[0].gamma == 0


def test_without_captions_none_are_weighed():
    tried = []
    tune_fusion(lambda fusion: tried.append(fusion) or 0.0, has_captions=False)
    assert {fusion.gamma for fusion in tried} == {0}
    assert len(tried) == 66  # as many as ways to put ten parts into three
