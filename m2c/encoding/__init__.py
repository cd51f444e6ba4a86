"""Features of images, texts and composed queries: in batches, on every process there is, stored where that saves work."""

from .batches import encode_images, encode_queries, encode_texts
from .extraction import Extractor
from .processes import processes


__all__ = ["Extractor", "encode_images", "encode_queries", "encode_texts", "processes"]
