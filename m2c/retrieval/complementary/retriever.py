"""Complementary retrieval in a gallery in memory."""

import hashlib
import os
from collections.abc import Sequence

import torch
from PIL.Image import Image

from m2c.encoding import encode_images, encode_queries, encode_texts
from m2c.retrieval.composed import ComposedRetriever, Picture
from modeling_m2c import M2CModel
from processing_m2c import M2CProcessor
from processing_m2c.images import open_image

from .features import mean_features
from .fusion import Fusion, fusion_for
from .prompting import with_added
from .writer import Writer


class ComplementaryRetriever(ComposedRetriever):
    """As [`ComposedRetriever`], with the help of a captioner and a language model: the method CVSI.

    Scores are products of the fused query and the fused gallery, not cosines.

    Args:
        model: any M2C model, in eval mode, on its device; one of LinCIR is the paper's setting, one of stage 2 is stronger.
        processor: its processor.
        writer: captioner and editor, and the store of their texts.
        fusion: the weights; by default those for CIRR.
        batch_size: pictures or queries at a time.
    """

    def __init__(
        self,
        model: M2CModel,
        processor: M2CProcessor,
        writer: Writer,
        fusion: Fusion | None = None,
        batch_size: int = 64,
    ):
        super().__init__(model, processor, batch_size)
        self.writer, self.fusion = writer, fusion or fusion_for("cirr")

    def _gallery_features(self, pictures: Sequence[Picture]) -> torch.Tensor:
        images = super()._gallery_features(pictures)
        captions = mean_features(self._encode_texts, self._captions(pictures)) if self.fusion.gamma else None
        return self.fusion.gallery(images, captions)

    def _query_features(self, pictures: Sequence[Picture], texts: Sequence[str]) -> torch.Tensor:
        edits = self.writer.edits(self._captions(pictures), texts)
        asked = with_added(texts, edits.added, self.writer.editor.benchmark)
        return self.fusion.queries(
            edited=mean_features(self._encode_texts, edits.edited),
            composed=encode_queries(self.model, self.processor, pictures, asked, self.batch_size),
            reference=encode_images(self.model, self.processor, pictures, self.batch_size),
        )

    def _captions(self, pictures: Sequence[Picture]) -> list[list[str]]:
        names = [_name(picture, number) for number, picture in enumerate(pictures)]
        return self.writer.captions(lambda row: open_image(pictures[row]), [_digest(picture) for picture in pictures], names)

    def _encode_texts(self, texts: list[str]) -> torch.Tensor:
        return encode_texts(self.model, self.processor, texts, self.batch_size)


def _digest(picture: Picture) -> str:
    """SHA-256 of a file, as `m2c caption` and `m2c evaluate` know it, or of the pixels of what is none."""
    if not isinstance(picture, Image) and os.path.isfile(picture):
        with open(picture, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    upright = open_image(picture)
    return hashlib.sha256(f"{upright.size} ".encode() + upright.tobytes()).hexdigest()


def _name(picture: Picture, number: int) -> str:
    return getattr(picture, "filename", "") or f"picture {number + 1}" if isinstance(picture, Image) else str(picture)
