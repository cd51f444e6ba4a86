"""The Space: a page on the Hub that searches a gallery with a picture and words."""

from .gallery import read_gallery
from .publication import make_space, publish_space


__all__ = ["make_space", "publish_space", "read_gallery"]
