"""A folder of pictures, with the digests by which texts about them are found."""

from pathlib import Path

from PIL.Image import Image

from m2c.data.picture_files import find_pictures
from m2c.encoding.image_digests import ImageDigests
from processing_m2c.images import open_image


class PictureFolder:
    """The pictures in a folder and below it.

    Args:
        folder: that they are in.
        cache_dir: where digests are remembered.

    Attributes:
        names: paths below the folder, with `/`.
        digests: SHA-256 of each file, in the same order.

    Raises:
        ValueError: if there is no such folder, no picture in it, or a file that cannot be read.
        OSError: if digests cannot be remembered.
    """

    def __init__(self, folder: Path, cache_dir: Path):
        found = find_pictures(folder)
        self.names, self.paths = list(found), list(found.values())
        self.digests = ImageDigests(cache_dir / "images.sqlite").of_files(self.paths)

    def picture(self, position: int) -> Image:
        """As upright RGB. Raises `ValueError` if it cannot be decoded; the message names it."""
        return open_image(self.paths[position])
