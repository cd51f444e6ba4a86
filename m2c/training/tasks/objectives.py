"""The objectives of M2C (arXiv 2504.17990).

All features are unit vectors of shape `(batch_size, dim)`; `tau` is a temperature. Row i of every argument belongs to the same
sample. With several processes each scores its own rows against the rows of all of them, so the negatives come from the global
batch and the mean over processes is the loss of the global batch.
"""

import torch
from torch.nn import functional as F

from m2c.training.processes.distributed import gather, label_offset


def _labels(features: torch.Tensor) -> torch.Tensor:
    return torch.arange(len(features), device=features.device) + label_offset(len(features))


def info_nce(queries: torch.Tensor, keys: torch.Tensor, tau: float) -> torch.Tensor:
    """InfoNCE in one direction: `-log softmax_j(q_i . k_j / tau)_i`, mean over i."""
    return F.cross_entropy(queries @ gather(keys).T / tau, _labels(queries))


def symmetric_info_nce(a: torch.Tensor, b: torch.Tensor, tau: float) -> torch.Tensor:
    """Mean of InfoNCE from `a` to `b` and from `b` to `a`."""
    return (info_nce(a, b, tau) + info_nce(b, a, tau)) / 2


def soft_text_alignment(captions: torch.Tensor, images: torch.Tensor, composed: torch.Tensor, tau: float) -> torch.Tensor:
    """Soft text alignment: composed features are to relate to captions as images do.

    `KL(q || p)`, mean over i, of the teacher `q_i = softmax_j(c_i . v_j / tau)` and the student
    `p_i = softmax_j(c_i . t_j / tau)`.
    """
    teacher = F.log_softmax(captions @ gather(images).T / tau, dim=-1)
    student = F.log_softmax(captions @ gather(composed).T / tau, dim=-1)
    return F.kl_div(student, teacher, reduction="batchmean", log_target=True)


def mixed_hard_negatives(queries: torch.Tensor, targets: torch.Tensor, k: int) -> torch.Tensor:
    """Logits (before the temperature) of mixed hard negatives.

    For query i the `k` non-matching targets of highest logits are each mixed with its own target, `w_ij T_i + (1 - w_ij) T_j`,
    where `w_ij` is the cosine of `T_i` and `T_j`, scaled to 0..1 over row i.

    Returns:
        `torch.Tensor` of shape `(batch_size, min(k, global_batch_size - 1))`.
    """
    everyone, rows, own = gather(targets), torch.arange(len(queries), device=queries.device), _labels(queries)
    logits = (queries @ everyone.T).detach()
    logits[rows, own] = -torch.inf
    hardest = logits.topk(min(k, len(everyone) - 1), dim=-1).indices
    similarity = targets @ everyone.T
    low, high = similarity.amin(dim=-1, keepdim=True), similarity.amax(dim=-1, keepdim=True)
    weights = ((similarity - low) / (high - low).clamp_min(1e-6)).gather(1, hardest)[..., None]
    mixed = weights * targets[:, None] + (1 - weights) * everyone[hardest]
    return (mixed @ queries[..., None])[..., 0]


def composing_loss(
    composed: torch.Tensor,
    targets: torch.Tensor,
    tau: float,
    hard_negatives: int = 10,
    scale_hard_negatives: bool = True,
    references: torch.Tensor | None = None,
) -> torch.Tensor:
    """`L_comp = (CE(T m' / tau) + CE([m T', mix] / tau)) / 2`: composed queries find their targets, and targets their queries.

    Args:
        composed: features m of the composed queries.
        targets: image features T of the targets.
        hard_negatives: mixed hard negatives for each query; 0 for none.
        scale_hard_negatives: whether their logits are divided by `tau` like the others. The published code does not, which
            leaves them without effect.
        references: image features of the reference images. If given, each is one more negative of its own query: the
            modified image is wanted, not the reference itself. Not in the paper.
    """
    target_to_query = info_nce(targets, composed, tau)
    logits = [composed @ gather(targets).T / tau]
    if hard_negatives:
        mixed = mixed_hard_negatives(composed, targets, hard_negatives)
        logits.append(mixed / tau if scale_hard_negatives else mixed)
    if references is not None:
        logits.append((composed * references).sum(dim=-1, keepdim=True) / tau)
    return (target_to_query + F.cross_entropy(torch.cat(logits, dim=-1), _labels(composed))) / 2
