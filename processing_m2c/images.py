"""Turns whatever Pillow can open into the RGB picture that CLIP expects."""

import os

import numpy as np
from PIL import Image, ImageCms, ImageOps
from transformers.image_transforms import to_pil_image
from transformers.image_utils import load_image


# CLIP scales the short side and crops the middle; of an image wider than this only the middle is worth scaling.
MAX_ASPECT_RATIO = 50
# Before padding to a square, so that a very wide image does not become an enormous one.
MAX_SIDE_TO_PAD = 4096


def open_image(image) -> Image.Image:
    """An upright RGB picture, the first frame of an animation.

    Args:
        image (`PIL.Image.Image`, `numpy.ndarray`, `torch.Tensor`, `str`, `os.PathLike` or a binary file):
            A picture, or a path or URL. Transparency is dropped as CLIP's own preprocessing drops it; 16-bit and float
            greys are scaled to 8 bits; EXIF orientation is applied.

    Raises:
        ValueError: if it cannot be read; the message names the file.
    """
    try:
        if isinstance(image, str) and image.startswith(("http://", "https://", "data:image/")):
            picture = load_image(image)
        elif isinstance(image, (str, os.PathLike)) or hasattr(image, "read"):
            picture = Image.open(image)
        elif isinstance(image, Image.Image):
            picture = image
        elif isinstance(image, np.ndarray) and image.dtype == np.uint8 and (image.ndim == 2 or image.shape[-1] in (3, 4)):
            picture = Image.fromarray(image)
        else:
            picture = to_pil_image(image)
        if getattr(picture, "is_animated", False):
            picture.seek(0)
        return _to_rgb(ImageOps.exif_transpose(picture))
    except Exception as error:
        # Pillow's plug-ins report a broken file by whatever exception comes up: OSError, IndexError, SyntaxError and others.
        name = image if isinstance(image, (str, os.PathLike)) else getattr(image, "filename", "") or type(image).__name__
        raise ValueError(f"the image {name} cannot be read ({error}); check the file, or leave it out") from error


def _to_rgb(picture: Image.Image) -> Image.Image:
    if picture.mode.startswith("I;16"):
        return _from_grey(np.asarray(picture) / 257)
    if picture.mode == "I":
        values = np.asarray(picture)
        return _from_grey(values / 257 if values.max() > 255 else values)
    if picture.mode == "F":
        values = np.nan_to_num(np.asarray(picture))
        return _from_grey(values * 255 if values.max() <= 1 else values)
    if picture.mode == "LAB":
        lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
        return ImageCms.profileToProfile(picture, lab, srgb, outputMode="RGB")
    if picture.mode == "La":  # premultiplied; Pillow converts it to nothing but LA
        picture = picture.convert("LA")
    return picture.convert("RGB")


def _from_grey(values: np.ndarray) -> Image.Image:
    return Image.fromarray(np.clip(values, 0, 255).round().astype(np.uint8)).convert("RGB")


def fit_aspect(picture: Image.Image, target_pad: float | None) -> Image.Image:
    """The picture as the image processor should get it.

    With `target_pad`, a picture whose long side exceeds `target_pad` times its short side is padded with black to a square, so
    that the centre crop cuts nothing off. Without it, only the middle of extremely long pictures is kept, which is all that the
    centre crop would leave.
    """
    width, height = picture.size
    long, short = max(width, height), min(width, height)
    if target_pad is not None:
        if long <= target_pad * short:
            return picture
        if long > MAX_SIDE_TO_PAD:
            # Not left to `pad`: a line of one pixel would vanish there in some releases of Pillow.
            size = [max(1, round(side * MAX_SIDE_TO_PAD / long)) for side in (width, height)]
            picture, long = picture.resize(size, Image.Resampling.BICUBIC), MAX_SIDE_TO_PAD
        return ImageOps.pad(picture, (long, long))
    if long <= MAX_ASPECT_RATIO * short:
        return picture
    keep = MAX_ASPECT_RATIO * short
    left, top = (max(0, width - keep) // 2, max(0, height - keep) // 2)
    return picture.crop((left, top, left + min(width, keep), top + min(height, keep)))
