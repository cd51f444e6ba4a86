"""Retrieval metrics as plain functions. Rankings hold gallery positions, best first."""

from collections.abc import Sequence

import torch


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
    batch_size: int = 128,
) -> torch.LongTensor:
    """The `k` gallery items of highest cosine for each query. Equal scores are ordered by [`tie_order`].

    Args:
        queries (`torch.Tensor` of shape `(num_queries, dim)`), of any length.
        gallery (`torch.Tensor` of shape `(num_gallery, dim)`), of any length.
        k: how many to return, at most the size of the gallery.
        excluded: for each query the gallery position that is left out of its ranking, as a rule its own reference.
        batch_size: queries scored at a time; bounds the memory to some `10 * batch_size * num_gallery` bytes.

    Returns:
        `torch.LongTensor` of shape `(num_queries, min(k, num_gallery))`. The excluded item is last, if it is there at all.
    """
    shuffle = tie_order(len(gallery))
    # The length of a query changes nothing in its ranking. That of a gallery item does; scaling scores spares a copy.
    scales = 1 / gallery.norm(dim=-1).clamp_min(torch.finfo(gallery.dtype).tiny)
    rankings = []
    for start in range(0, len(queries), batch_size):
        scores = (queries[start : start + batch_size] @ gallery.T).mul_(scales)
        if excluded is not None:
            scores[torch.arange(len(scores)), torch.as_tensor(excluded[start : start + batch_size])] = -torch.inf
        rankings.append(shuffle[top_k(scores[:, shuffle], min(k, len(gallery)))])
    return torch.cat(rankings)


def top_k(scores: torch.Tensor, k: int) -> torch.LongTensor:
    """The columns of the `k` highest scores in each row, best first; of equal scores the lower column comes first.

    Args:
        scores (`torch.Tensor` of shape `(rows, columns)`).
        k: at most `columns`.
    """
    columns = scores.topk(k, dim=-1).indices.sort(dim=-1).values
    values = scores.gather(1, columns)
    columns = columns.gather(1, values.argsort(dim=-1, descending=True, stable=True))
    # Where more scores equal the last one than there is room for, topk took any of them.
    crowded = (scores >= values.amin(dim=-1, keepdim=True)).sum(dim=-1) > k
    for row in crowded.nonzero()[:, 0]:
        columns[row] = scores[row].argsort(descending=True, stable=True)[:k]
    return columns


def rank_subsets(
    queries: torch.Tensor, gallery: torch.Tensor, subsets: Sequence[Sequence[int]], batch_size: int = 1024
) -> torch.LongTensor:
    """Ranks a small subset of the gallery of each query's own, by cosine; equal scores are ordered by [`tie_order`].

    Args:
        queries (`torch.Tensor` of shape `(num_queries, dim)`), of any length.
        gallery (`torch.Tensor` of shape `(num_gallery, dim)`), of any length.
        subsets: gallery positions for each query.
        batch_size: queries scored at a time.

    Returns:
        `torch.LongTensor` of shape `(num_queries, size of the largest subset)`; smaller subsets end in -1.
    """
    place = tie_order(len(gallery)).argsort().tolist()
    members = [torch.tensor(sorted(subset, key=place.__getitem__), dtype=torch.long) for subset in subsets]
    members = torch.nn.utils.rnn.pad_sequence(members, batch_first=True, padding_value=-1)
    rankings = []
    for start in range(0, len(queries), batch_size):
        batch = members[start : start + batch_size]
        candidates = torch.nn.functional.normalize(gallery[batch], dim=-1)
        scores = (candidates @ queries[start : start + batch_size, :, None])[..., 0]
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
