"""`scenes`: a procedural world of shapes, so that everything can be tried without a download."""

from pathlib import Path

from .datasets import composed_retrieval, pairs, triplets


# A CLIP of 2.7 M parameters trained on this world by `train_clip.py`, with its tokenizer and image processor.
CLIP_PATH = Path(__file__).parent / "clip"

__all__ = ["CLIP_PATH", "composed_retrieval", "pairs", "triplets"]
