"""Every term of the objectives against loops written from the formulas."""

import math

import pytest
import torch
from torch.nn.functional import normalize

from m2c.training.tasks.objectives import (
    composing_loss,
    info_nce,
    mixed_hard_negatives,
    soft_text_alignment,
    symmetric_info_nce,
)


TAU = 0.07


@pytest.fixture
def features() -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [normalize(torch.randn(6, 8, generator=generator), dim=-1) for _ in range(4)]


def softmax(logits: list[float]) -> list[float]:
    total = sum(math.exp(x) for x in logits)
    return [math.exp(x) / total for x in logits]


def logits(query: torch.Tensor, keys: torch.Tensor) -> list[float]:
    return [float(query @ key) / TAU for key in keys]


def test_info_nce(features):
    a, b, *_ = features
    forward = sum(-math.log(softmax(logits(a[i], b))[i]) for i in range(6)) / 6
    backward = sum(-math.log(softmax(logits(b[i], a))[i]) for i in range(6)) / 6
    assert info_nce(a, b, TAU).item() == pytest.approx(forward, rel=1e-4)
    assert symmetric_info_nce(a, b, TAU).item() == pytest.approx((forward + backward) / 2, rel=1e-4)


def test_soft_text_alignment(features):
    captions, images, composed, _ = features
    total = 0.0
    for i in range(6):
        teacher, student = softmax(logits(captions[i], images)), softmax(logits(captions[i], composed))
        total += sum(q * math.log(q / p) for q, p in zip(teacher, student))
    assert soft_text_alignment(captions, images, composed, TAU).item() == pytest.approx(total / 6, rel=1e-4)
    assert soft_text_alignment(captions, images, images, TAU).item() == pytest.approx(0, abs=1e-6)


def mixes(queries: torch.Tensor, targets: torch.Tensor, k: int) -> list[list[float]]:
    """Logits m_i . (w_ij T_i + (1 - w_ij) T_j) for the k hardest j, hardest first, without the temperature."""
    result = []
    for i in range(len(queries)):
        cosines = [float(targets[i] @ target) for target in targets]
        hardest = sorted((j for j in range(len(targets)) if j != i), key=lambda j: -float(queries[i] @ targets[j]))[:k]
        row = []
        for j in hardest:
            w = (cosines[j] - min(cosines)) / (max(cosines) - min(cosines))
            row.append(float(queries[i] @ (w * targets[i] + (1 - w) * targets[j])))
        result.append(row)
    return result


@pytest.mark.parametrize("k", [1, 3, 5, 10])
def test_mixed_hard_negatives(features, k):
    queries, targets, *_ = features
    torch.testing.assert_close(
        mixed_hard_negatives(queries, targets, k), torch.tensor(mixes(queries, targets, k)), atol=1e-5, rtol=1e-4
    )


def test_mixed_hard_negatives_of_equal_targets_are_finite(features):
    queries, targets, *_ = features
    assert torch.isfinite(mixed_hard_negatives(queries, targets[:1].expand(6, -1), 3)).all()


@pytest.mark.parametrize("scaled", [True, False])
@pytest.mark.parametrize("k", [0, 3])
@pytest.mark.parametrize("with_references", [True, False])
def test_composing_loss(features, scaled, k, with_references):
    composed, targets, references, _ = features
    total = 0.0
    for i in range(6):
        total += -math.log(softmax(logits(targets[i], composed))[i])
        row = logits(composed[i], targets)
        row += [x / TAU if scaled else x for x in (mixes(composed, targets, k)[i] if k else [])]
        row += logits(composed[i], references[i : i + 1]) if with_references else []
        total += -math.log(softmax(row)[i])
    loss = composing_loss(composed, targets, TAU, k, scaled, references if with_references else None)
    assert loss.item() == pytest.approx(total / 12, rel=1e-4)


def test_unscaled_mixes_hardly_count(features):
    """The published code forgets the temperature: what it adds then is next to nothing."""
    composed, targets, *_ = features
    none, unscaled, scaled = (
        composing_loss(composed, targets, 0.01, k, s).item() for k, s in ((0, True), (5, False), (5, True))
    )
    assert abs(unscaled - none) < 1e-3 < scaled - none


def test_gradients_of_the_losses(features):
    a, b, c, d = (tensor.double().requires_grad_() for tensor in features)
    assert torch.autograd.gradcheck(lambda x, y: symmetric_info_nce(x, y, 0.5), (a, b))
    assert torch.autograd.gradcheck(lambda x, y, z: soft_text_alignment(x, y, z, 0.5), (a, b, c))
    targets, references = b.detach(), d.detach()
    assert torch.autograd.gradcheck(lambda x: composing_loss(x, targets, 0.5, 3, True, references), (a,))
