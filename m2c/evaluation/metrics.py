"""Retrieval metrics as plain functions. Rankings hold gallery positions, best first."""

from collections.abc import Sequence

import torch

from m2c.retrieval.top_k import top_k


def tie_order(size: int) -> torch.LongTensor:
    """A fixed shuffle of `size` gallery positions: of equal scores the one that comes first here ranks first.

    Data sets list images in an order that means something, the target before the others for one, so the order of the list
    must not decide.
    """
    return torch.randperm(size, generator=torch.Generator().manual_seed(0))


def rank_gallery(
    queries: torch.Tensor,
    gallery: torch.Tensor,
    k: int,
    excluded: Sequence[int] | None = None,
    is_cosine: bool = True,
    scores_at_once: int = 2**24,
) -> torch.LongTensor:
    """The `k` gallery items of highest score for each query. Equal scores are ordered by [`tie_order`].

    Args:
        queries (`torch.Tensor` of shape `(num_queries, dim)`), of any length.
        gallery (`torch.Tensor` of shape `(num_gallery, dim)`), of any length.
        k: how many to return, at most the size of the gallery.
        excluded: for each query the gallery position that is left out of its ranking, as a rule its own reference.
        is_cosine: whether a score is a cosine, or the product of query and gallery item as they are.
        scores_at_once: queries times gallery items scored at a time. Besides some ten bytes for each of them, memory holds one
            copy of the gallery.

    Returns:
        `torch.LongTensor` of shape `(num_queries, min(k, num_gallery))`. The excluded item is last, if it is there at all.
    """
    shuffle = tie_order(len(gallery))
    shuffled = gallery[shuffle]
    # The length of a query changes nothing in its ranking; that of a gallery item does.
    if is_cosine:
        shuffled /= shuffled.norm(dim=-1, keepdim=True).clamp_min(torch.finfo(gallery.dtype).tiny)
    columns = None if excluded is None else shuffle.argsort()[torch.as_tensor(excluded)]
    rankings, rows = [], max(1, scores_at_once // len(gallery))
    for start in range(0, len(queries), rows):
        scores = queries[start : start + rows] @ shuffled.T
        if columns is not None:
            scores[torch.arange(len(scores)), columns[start : start + rows]] = -torch.inf
        rankings.append(shuffle[top_k(scores, min(k, len(gallery)))])
    return torch.cat(rankings)


def rank_subsets(
    queries: torch.Tensor,
    gallery: torch.Tensor,
    subsets: Sequence[Sequence[int]],
    is_cosine: bool = True,
    batch_size: int = 1024,
) -> torch.LongTensor:
    """Ranks a small subset of the gallery of each query's own; equal scores are ordered by [`tie_order`].

    Args:
        queries (`torch.Tensor` of shape `(num_queries, dim)`), of any length.
        gallery (`torch.Tensor` of shape `(num_gallery, dim)`), of any length.
        subsets: gallery positions for each query.
        is_cosine: as for [`rank_gallery`].
        batch_size: queries scored at a time.

    Returns:
        `torch.LongTensor` of shape `(num_queries, size of the largest subset)`; smaller subsets end in -1.
    """
    flat = torch.tensor([position for subset in subsets for position in subset], dtype=torch.long)
    members = flat.split([len(subset) for subset in subsets])
    members = torch.nn.utils.rnn.pad_sequence(members, batch_first=True, padding_value=-1)
    # In a fixed order of their own before the stable sort; the filling, at place `len(gallery)`, comes last.
    place = torch.cat([tie_order(len(gallery)).argsort(), torch.tensor([len(gallery)])])
    members = members.gather(1, place[members].argsort(dim=-1))
    lengths = gallery.norm(dim=-1).clamp_min(torch.finfo(gallery.dtype).tiny)
    scales = 1 / lengths if is_cosine else torch.ones_like(lengths)
    rankings = []
    for start in range(0, len(queries), batch_size):
        batch = members[start : start + batch_size]
        scores = (gallery[batch] @ queries[start : start + batch_size, :, None])[..., 0] * scales[batch]
        scores[batch < 0] = -torch.inf
        rankings.append(batch.gather(1, scores.argsort(dim=-1, descending=True, stable=True)))
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

    Raises:
        ValueError: if a query has no correct answer.
    """
    if not all(answers):
        raise ValueError("every query needs a correct answer for mAP; one has none")
    total = 0.0
    for ranking, correct in zip(rankings[:, :k].tolist(), answers, strict=True):
        correct, hits, precision = set(correct), 0, 0.0
        for rank, item in enumerate(ranking, start=1):
            if item in correct:
                hits += 1
                precision += hits / rank
        total += precision / min(len(correct), k)
    return total / len(answers)
