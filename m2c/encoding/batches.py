"""Encodes many images, captions or composed queries, in batches with a progress bar."""

from collections.abc import Callable, Sequence

import torch
from torch.nn.functional import normalize
from tqdm.auto import tqdm

from modeling_m2c import M2CModel
from processing_m2c import M2CProcessor


def encode_images(model: M2CModel, processor: M2CProcessor, images: Sequence, batch_size: int = 256) -> torch.Tensor:
    """Unit image features, shape `(len(images), projection_dim)`."""

    def encode(start: int, stop: int) -> torch.Tensor:
        inputs = processor(images=images[start:stop], return_tensors="pt").to(model.device)
        return model.get_image_features(**inputs).pooler_output

    return _in_batches(encode, len(images), batch_size, "gallery")


def encode_texts(model: M2CModel, processor: M2CProcessor, texts: Sequence[str], batch_size: int = 256) -> torch.Tensor:
    """Unit features of plain texts, shape `(len(texts), projection_dim)`."""

    def encode(start: int, stop: int) -> torch.Tensor:
        inputs = processor(text=texts[start:stop], return_tensors="pt").to(model.device)
        return model.get_text_features(**inputs).pooler_output

    return _in_batches(encode, len(texts), batch_size, "texts")


def encode_queries(
    model: M2CModel, processor: M2CProcessor, images: Sequence, texts: Sequence[str], batch_size: int = 256
) -> torch.Tensor:
    """Unit features of composed queries, shape `(len(texts), projection_dim)`."""

    def encode(start: int, stop: int) -> torch.Tensor:
        inputs = processor(images=images[start:stop], text=texts[start:stop], return_tensors="pt").to(model.device)
        return model.get_composed_features(**inputs).pooler_output

    return _in_batches(encode, len(texts), batch_size, "queries")


@torch.no_grad()
def _in_batches(encode: Callable[[int, int], torch.Tensor], size: int, batch_size: int, name: str) -> torch.Tensor:
    starts = tqdm(range(0, size, batch_size), desc=f"encoding {name}", disable=size <= batch_size)
    parts = [normalize(encode(start, min(start + batch_size, size)).float(), dim=-1).cpu() for start in starts]
    return torch.cat(parts)
