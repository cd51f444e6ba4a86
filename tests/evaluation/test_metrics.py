import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.functional import normalize

from m2c.evaluation.baselines import add, slerp
from m2c.evaluation.metrics import (
    mean_average_precision_at_k,
    rank_gallery,
    rank_subsets,
    recall_at_k,
    tie_order,
)


def features(count: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, 6, generator=torch.Generator().manual_seed(seed))


def test_ranking_is_by_cosine_and_leaves_the_reference_out():
    queries, gallery, excluded = features(7), features(20, 1), [3, 0, 19, 5, 5, 7, 1]
    cosines = normalize(queries, dim=-1) @ normalize(gallery, dim=-1).T
    rankings = rank_gallery(queries, gallery, 20, excluded, scores_at_once=60)
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
    with pytest.raises(ValueError, match="needs a correct answer"):
        mean_average_precision_at_k(rankings, [[]], 5)


@given(st.permutations(range(8)), st.sets(st.integers(0, 7), min_size=1), st.integers(1, 8))
def test_average_precision_is_a_share_and_best_when_answers_come_first(order, answers, k):
    value = mean_average_precision_at_k(torch.tensor([order]), [sorted(answers)], k)
    best = [*answers, *(i for i in order if i not in answers)]
    assert 0 <= value <= 1 == pytest.approx(mean_average_precision_at_k(torch.tensor([best]), [sorted(answers)], k))


def test_subsets_are_ranked_alone():
    gallery = torch.eye(6)
    queries = torch.tensor([[9.0, 3, 2, 1, 0, 0], [9, 0, 0, 1, 2, 3]])
    assert rank_subsets(queries, gallery, [[1, 2, 3], [3, 5]]).tolist() == [[1, 2, 3], [5, 3, -1]]
    rankings = rank_subsets(queries, gallery, [[1, 2, 3], [3, 4, 5]], batch_size=1)
    assert [recall_at_k(rankings, [1, 4], k) for k in (1, 2)] == [0.5, 1.0]


def test_subset_ties_favour_no_place():
    """Wherever the target is listed among equals makes no difference, and in one place out of five it is found first."""
    queries, gallery = torch.ones(1, 4), torch.ones(5, 4)
    orders = [[0, 1, 2, 3, 4], [4, 3, 2, 1, 0], [2, 0, 4, 1, 3]]
    assert len({tuple(rank_subsets(queries, gallery, [order])[0].tolist()) for order in orders}) == 1
    assert sum(recall_at_k(rank_subsets(queries, gallery, [orders[0]]), [target], 1) for target in range(5)) == 1.0


def brute_force_ranking(scores: list[float], order: list[int], excluded: int | None = None) -> list[int]:
    """From the definition: the best first, equals by the fixed shuffle."""
    return sorted((i for i in range(len(scores)) if i != excluded), key=lambda i: (-scores[i], order.index(i)))


@given(st.data())
def test_rankings_and_metrics_against_brute_force(data):
    """Rankings with ties, several answers, subsets and excluded references, all from their definitions, with loops."""
    size, count = data.draw(st.integers(3, 12)), data.draw(st.integers(1, 4))
    # Orthogonal directions, several images of each: within a direction all cosines are equal, to the bit.
    directions = data.draw(st.lists(st.integers(0, 2), min_size=size, max_size=size))
    gallery = torch.eye(3)[directions]
    weights = data.draw(st.lists(st.tuples(*[st.sampled_from([0.0, 1.0, 2.0])] * 3), min_size=count, max_size=count))
    queries = torch.tensor(weights)
    excluded = data.draw(st.lists(st.integers(0, size - 1), min_size=count, max_size=count))
    targets = data.draw(st.lists(st.integers(0, size - 1), min_size=count, max_size=count))
    answers = [sorted({target, *data.draw(st.sets(st.integers(0, size - 1)))}) for target in targets]
    subsets = [list({target, *data.draw(st.sets(st.integers(0, size - 1)))}) for target in targets]
    k = data.draw(st.integers(1, size - 1))

    order = tie_order(size).tolist()
    scores = [[row[direction] for direction in directions] for row in weights]
    expected = [brute_force_ranking(row, order, left_out) for row, left_out in zip(scores, excluded)]
    rankings = rank_gallery(queries, gallery, k, excluded, scores_at_once=2 * size)
    assert rankings.tolist() == [row[:k] for row in expected]
    found = sum(target in row[:k] for target, row in zip(targets, expected)) / count
    assert recall_at_k(rankings, targets, k) == pytest.approx(found)

    ranked = [brute_force_ranking(row, order) for row in scores]
    total = 0.0
    for row, correct in zip(ranked, answers):
        precisions = [sum(item in correct for item in row[:i]) / i for i in range(1, k + 1) if row[i - 1] in correct]
        total += sum(precisions) / min(len(correct), k)
    found = mean_average_precision_at_k(rank_gallery(queries, gallery, k), answers, k)
    assert found == pytest.approx(total / count)

    within = [[item for item in row if item in subset] for row, subset in zip(ranked, subsets)]
    padded = [row + [-1] * (max(map(len, subsets)) - len(row)) for row in within]
    assert rank_subsets(queries, gallery, subsets).tolist() == padded


def test_baselines():
    images, texts = normalize(features(5), dim=-1), normalize(features(5, 1), dim=-1)
    torch.testing.assert_close(slerp(images, texts, 0.0), images)
    torch.testing.assert_close(slerp(images, texts, 1.0), texts)
    torch.testing.assert_close(slerp(images, texts, 0.5), add(images, texts))
    torch.testing.assert_close(slerp(images, texts, 0.35).norm(dim=-1), torch.ones(5))
    angle = torch.arccos((images * texts).sum(-1))
    torch.testing.assert_close(torch.arccos((images * slerp(images, texts, 0.35)).sum(-1)), 0.35 * angle, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(slerp(images, images, 0.35), images, atol=1e-3, rtol=1e-3)
