"""Search of a gallery in memory by a picture and words."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL.Image import Image

from m2c.encoding import encode_images, encode_queries
from modeling_m2c import M2CModel
from processing_m2c import M2CProcessor

from .top_k import top_k


Picture = str | Path | Image


@dataclass(frozen=True)
class Match:
    """A picture that was found.

    Args:
        name: of the picture, as it was given to `add`.
        score: how well it fits; to be compared among the answers to one query only.
    """

    name: str
    score: float


class ComposedRetriever:
    """Pictures, and the search for those that look like a reference picture after words were applied to it, by cosine.

    Args:
        model: in eval mode, on its device.
        processor: its processor.
        batch_size: pictures or queries at a time.
    """

    def __init__(self, model: M2CModel, processor: M2CProcessor, batch_size: int = 64):
        self.model, self.processor, self.batch_size = model, processor, batch_size
        self.names: list[str] = []
        self.gallery = torch.zeros(0, model.config.projection_dim)

    def add(self, pictures: Sequence[Picture], names: Sequence[str]) -> None:
        """Adds pictures to the gallery.

        Args:
            pictures: files, or images of Pillow.
            names: one for each, by which it is found.

        Raises:
            ValueError: if there are not as many names as pictures, a name comes twice, or a picture cannot be
                read.
        """
        if len(pictures) != len(names):
            raise ValueError(f"there are {len(pictures)} pictures and {len(names)} names")
        if len({*self.names, *names}) < len(self.names) + len(names):
            raise ValueError("a name stands for one picture only; some come twice")
        if pictures:
            self.gallery = torch.cat([self.gallery, self._gallery_features(pictures)])
            self.names += names

    def search(
        self, pictures: Sequence[Picture], texts: Sequence[str], k: int = 10, without: Sequence[str | None] | None = None
    ) -> list[list[Match]]:
        """The pictures of the gallery that fit best, for each query.

        Args:
            pictures: the reference of each query, a file or an image of Pillow.
            texts: the modification text of each query; a blank one asks for more of the same.
            k: how many to find.
            without: for each query the name of a picture that is left out, as a rule the reference itself.

        Raises:
            ValueError: if the gallery is empty, there are not as many texts as pictures, or a name is not in the gallery.
        """
        if not self.names:
            raise ValueError("the gallery is empty; add pictures first")
        if len(pictures) != len(texts):
            raise ValueError(f"a query is a picture and a text, but there are {len(pictures)} pictures and {len(texts)} texts")
        if not pictures:
            return []
        scores = self._query_features(pictures, texts) @ self.gallery.T
        place = {name: column for column, name in enumerate(self.names)}
        for query, name in enumerate(without or ()):
            if name is not None:
                if name not in place:
                    raise ValueError(f"{name!r} is to be left out, but is not in the gallery")
                scores[query, place[name]] = -torch.inf
        best = top_k(scores, min(k, len(self.names)))
        found = zip(best.tolist(), scores.gather(1, best).tolist())
        return [[Match(self.names[column], score) for column, score in zip(*row) if score > -torch.inf] for row in found]

    def _gallery_features(self, pictures: Sequence[Picture]) -> torch.Tensor:
        return encode_images(self.model, self.processor, pictures, self.batch_size)

    def _query_features(self, pictures: Sequence[Picture], texts: Sequence[str]) -> torch.Tensor:
        return encode_queries(self.model, self.processor, pictures, texts, self.batch_size)
