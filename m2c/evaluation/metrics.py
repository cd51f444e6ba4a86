"""Retrieval metrics as plain functions. Rankings hold gallery positions, best first."""

from collections.abc import Sequence

import torch


def rank_gallery(
    queries: torch.Tensor,
    gallery: torch.Tensor,
    k: int,
    excluded: Sequence[int] | None = None,
    batch_size: int = 1024,
) -> torch.Tensor:
    """The `k` gallery items of highest cosine for each query.

    Equal scores are ordered by a fixed shuffle of the gallery, so that no place in the list is favoured.

    Args:
        queries (`torch.Tensor` of shape `(num_queries, dim)`), of any length.
        gallery (`torch.Tensor` of shape `(num_gallery, dim)`), of any length.
        k: how many to return, at most the size of the gallery.
        excluded: for each query the gallery position that is left out of its ranking, as a rule its own reference.
        batch_size: queries scored at a time; bounds the memory.

    Returns:
        `torch.LongTensor` of shape `(num_queries, min(k, num_gallery))`. The excluded item is last, if it is there at all.
    """
    shuffle = torch.randperm(len(gallery), generator=torch.Generator().manual_seed(0))
    shuffled = torch.nn.functional.normalize(gallery[shuffle], dim=-1).T
    place = torch.argsort(shuffle)
    k = min(k, len(gallery))
    rankings = []
    for start in range(0, len(queries), batch_size):
        batch = torch.nn.functional.normalize(queries[start : start + batch_size], dim=-1)
        scores = batch @ shuffled
        if excluded is not None:
            columns = place[torch.as_tensor(excluded[start : start + batch_size])]
            scores[torch.arange(len(batch)), columns] = -torch.inf
        rankings.append(shuffle[scores.topk(k, dim=-1).indices])
    return torch.cat(rankings)


def recall_at_k(rankings: torch.Tensor, targets: Sequence[int], k: int) -> float:
    """Share of queries whose target is among the first `k`.

    Args:
        rankings (`torch.LongTensor` of shape `(num_queries, >= k)`).
        targets: the target's gallery position for each query.
    """
    found = rankings[:, :k] == torch.as_tensor(targets)[:, None]
    return found.any(dim=-1).double().mean().item()


def mean_average_precision_at_k(rankings: torch.Tensor, answers: Sequence[Sequence[int]], k: int) -> float:
    """mAP@k with several correct answers, as in CIRCO (arXiv 2303.15247): AP@k = 1/min(|G|, k) sum_i P(i) rel(i).

    Args:
        rankings (`torch.LongTensor` of shape `(num_queries, >= k)`).
        answers: the gallery positions of every correct answer, for each query.
    """
    total = 0.0
    for ranking, correct in zip(rankings[:, :k].tolist(), answers, strict=True):
        correct, hits, precision = set(correct), 0, 0.0
        for rank, item in enumerate(ranking, start=1):
            if item in correct:
                hits += 1
                precision += hits / rank
        total += precision / min(len(correct), k)
    return total / len(answers)


def subset_recall_at_k(
    queries: torch.Tensor, gallery: torch.Tensor, subsets: Sequence[Sequence[int]], targets: Sequence[int], k: int
) -> float:
    """Recall@k among a small subset of the gallery of each query's own, as in CIRR (arXiv 2108.04024).

    Args:
        queries (`torch.Tensor` of shape `(num_queries, dim)`).
        gallery (`torch.Tensor` of shape `(num_gallery, dim)`).
        subsets: gallery positions for each query, all equally many, the target among them.
        targets: the target's gallery position for each query.
    """
    members = torch.as_tensor(subsets)
    # In a fixed order of their own, as in `rank_gallery`: the target must not win a tie by its place.
    members = members[:, torch.randperm(members.shape[1], generator=torch.Generator().manual_seed(0))]
    candidates = torch.nn.functional.normalize(gallery[members], dim=-1)
    scores = (candidates @ queries[..., None])[..., 0]
    best = members.gather(1, scores.topk(min(k, members.shape[1]), dim=-1).indices)
    return recall_at_k(best, targets, k)
