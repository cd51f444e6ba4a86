"""Captions of pictures: several of each, drawn from a seed, and kept."""

from .captioner import Captioner, CaptionSettings
from .fill import caption
from .load import load_captioner


__all__ = ["CaptionSettings", "Captioner", "caption", "load_captioner"]
