import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.functional import normalize

from m2c.evaluation.baselines import add, slerp
from m2c.evaluation.metrics import mean_average_precision_at_k, rank_gallery, recall_at_k, subset_recall_at_k


def features(count: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, 6, generator=torch.Generator().manual_seed(seed))


def test_ranking_is_by_cosine_and_leaves_the_reference_out():
    queries, gallery, excluded = features(7), features(20, 1), [3, 0, 19, 5, 5, 7, 1]
    cosines = normalize(queries, dim=-1) @ normalize(gallery, dim=-1).T
    rankings = rank_gallery(queries, gallery, 20, excluded, batch_size=3)
    for row in range(7):
        expected = [i for i in cosines[row].argsort(descending=True).tolist() if i != excluded[row]]
        assert rankings[row].tolist() == [*expected, excluded[row]]
    assert torch.equal(rank_gallery(queries, gallery, 5, excluded), rankings[:, :5])
    assert torch.equal(rank_gallery(queries * 3, gallery * 0.1, 5, excluded), rankings[:, :5])


def test_ties_favour_no_place():
    """Of a gallery of equals every place comes first equally often, and the order is always the same."""
    queries, gallery = torch.ones(1, 4), torch.ones(50, 4)
    ranking = rank_gallery(queries, gallery, 50)[0].tolist()
    assert sorted(ranking) == list(range(50)) and ranking != list(range(50))
    assert rank_gallery(queries, gallery, 50)[0].tolist() == ranking
    hits = sum(recall_at_k(rank_gallery(queries, gallery, 10), [place], 10) for place in range(50))
    assert hits == 10


def test_recall():
    rankings = torch.tensor([[4, 2, 0], [1, 3, 5], [0, 1, 2]])
    assert [recall_at_k(rankings, [2, 1, 9], k) for k in (1, 2, 3)] == pytest.approx([1 / 3, 2 / 3, 2 / 3])


def test_average_precision_by_hand():
    rankings = torch.tensor([[7, 1, 8, 2, 9]])
    # Hits at ranks 2 and 4; three answers, of which five places could hold all, and two places only two.
    assert mean_average_precision_at_k(rankings, [[1, 2, 3]], 5) == pytest.approx((1 / 2 + 2 / 4) / 3)
    assert mean_average_precision_at_k(rankings, [[1, 2, 3]], 2) == pytest.approx((1 / 2) / 2)
    assert mean_average_precision_at_k(rankings, [[7]], 5) == 1.0


@given(st.permutations(range(8)), st.sets(st.integers(0, 7), min_size=1), st.integers(1, 8))
def test_average_precision_is_a_share_and_best_when_answers_come_first(order, answers, k):
    value = mean_average_precision_at_k(torch.tensor([order]), [sorted(answers)], k)
    best = [*answers, *(i for i in order if i not in answers)]
    assert 0 <= value <= 1 == pytest.approx(mean_average_precision_at_k(torch.tensor([best]), [sorted(answers)], k))


def test_subset_recall_looks_at_the_subset_only():
    gallery = torch.eye(6)
    queries = torch.tensor([[9.0, 3, 2, 1, 0, 0], [9, 0, 0, 1, 2, 3]])
    assert subset_recall_at_k(queries, gallery, [[1, 2, 3], [3, 4, 5]], [1, 4], 1) == 0.5
    assert subset_recall_at_k(queries, gallery, [[1, 2, 3], [3, 4, 5]], [1, 4], 2) == 1.0


def test_subset_ties_favour_no_place():
    """Wherever the target stands among equals, it is found first by one fixed shuffle: in one place out of five."""
    queries, gallery = torch.ones(1, 4), torch.ones(5, 4)
    hits = [subset_recall_at_k(queries, gallery, [list(range(5))], [target], 1) for target in range(5)]
    assert sum(hits) == 1.0 and hits[0] == 0.0, "the first place is where data sets list the target"


def test_baselines():
    images, texts = normalize(features(5), dim=-1), normalize(features(5, 1), dim=-1)
    torch.testing.assert_close(slerp(images, texts, 0.0), images)
    torch.testing.assert_close(slerp(images, texts, 1.0), texts)
    torch.testing.assert_close(slerp(images, texts, 0.5), add(images, texts))
    torch.testing.assert_close(slerp(images, texts, 0.35).norm(dim=-1), torch.ones(5))
    angle = torch.arccos((images * texts).sum(-1))
    torch.testing.assert_close(torch.arccos((images * slerp(images, texts, 0.35)).sum(-1)), 0.35 * angle, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(slerp(images, images, 0.35), images, atol=1e-3, rtol=1e-3)
