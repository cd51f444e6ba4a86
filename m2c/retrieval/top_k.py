"""The best of many scores."""

import torch


def top_k(scores: torch.Tensor, k: int) -> torch.LongTensor:
    """The columns of the `k` highest scores in each row, best first; of equal scores the lower column comes first.

    Args:
        scores (`torch.Tensor` of shape `(rows, columns)`).
        k: at most `columns`.
    """
    values, columns = scores.topk(min(k + 1, scores.shape[1]), dim=-1)
    # Where the next score equals the last one that counts, topk took any of the equals.
    crowded = (values[:, k - 1] == values[:, -1]) if values.shape[1] > k else torch.zeros(len(scores), dtype=torch.bool)
    columns = columns[:, :k].sort(dim=-1).values
    columns = columns.gather(1, scores.gather(1, columns).argsort(dim=-1, descending=True, stable=True))
    for row in crowded.nonzero()[:, 0]:
        columns[row] = scores[row].argsort(descending=True, stable=True)[:k]
    return columns
