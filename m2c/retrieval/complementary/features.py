"""The parts that complementary retrieval fuses, for all queries and the whole gallery at once."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain

import torch

from .fusion import Fusion


@dataclass(frozen=True)
class ComplementaryFeatures:
    """What a fusion takes; encoded once, it can be fused by any weights.

    Args:
        edited (`torch.Tensor` of shape `(num_queries, dim)`): f1, means of unit features of the captions of the edited image.
        composed (`torch.Tensor` of shape `(num_queries, dim)`): f2, unit features of composed queries.
        reference (`torch.Tensor` of shape `(num_queries, dim)`): f3, unit features of reference images.
        images (`torch.Tensor` of shape `(num_gallery, dim)`): unit features of the gallery.
        captions (`torch.Tensor` of shape `(num_gallery, dim)`): means of unit features of its captions, or `None`.
    """

    edited: torch.Tensor
    composed: torch.Tensor
    reference: torch.Tensor
    images: torch.Tensor
    captions: torch.Tensor | None

    def fuse(self, fusion: Fusion) -> tuple[torch.Tensor, torch.Tensor]:
        """Queries and gallery, to be compared by their product and not by their cosine."""
        return fusion.queries(self.edited, self.composed, self.reference), fusion.gallery(self.images, self.captions)


def mean_features(encode: Callable[[list[str]], torch.Tensor], texts: Sequence[Sequence[str]]) -> torch.Tensor:
    """The mean of unit features over several texts for each of many things.

    Args:
        encode: unit features of shape `(num_texts, dim)` of plain texts; gets every distinct text once.
        texts: one or more for each thing.

    Returns:
        `torch.Tensor` of shape `(len(texts), dim)`, not of unit length.
    """
    place = {text: row for row, text in enumerate(dict.fromkeys(chain.from_iterable(texts)))}
    features = encode(list(place))
    counts = torch.tensor([len(own) for own in texts])
    rows = torch.tensor([place[text] for text in chain.from_iterable(texts)])
    owners = torch.arange(len(texts)).repeat_interleave(counts)
    return torch.zeros(len(texts), features.shape[-1]).index_add_(0, owners, features[rows]) / counts[:, None]
