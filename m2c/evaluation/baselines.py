"""Ways to make a query of an image and a text without training: what a composed retriever has to beat."""

import torch
from torch.nn.functional import normalize


def add(images: torch.Tensor, texts: torch.Tensor) -> torch.Tensor:
    """The sum of unit image and text features, each of shape `(num_queries, dim)`."""
    return normalize(images + texts, dim=-1)


def slerp(images: torch.Tensor, texts: torch.Tensor, share: float) -> torch.Tensor:
    """Spherical interpolation from image to text (arXiv 2405.00571): `share` of the angle between them.

    `(sin((1 - s) a) v + sin(s a) t) / sin(a)` for unit features v and t of shape `(num_queries, dim)` at an angle a.
    """
    cosine = (images * texts).sum(dim=-1, keepdim=True).clamp(-1 + 1e-6, 1 - 1e-6)
    angle = torch.arccos(cosine)
    return (torch.sin((1 - share) * angle) * images + torch.sin(share * angle) * texts) / torch.sin(angle)
