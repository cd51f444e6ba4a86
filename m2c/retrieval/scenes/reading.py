"""Reads a caption of a scene back, and judges it against the scene."""

import re
from collections import Counter

from m2c.data.scenes.world import BACKGROUNDS, CELLS, COLORS, SHAPES, SIZES, TEXTURES, Scene


def _any(name: str, words) -> str:
    # "top left" has to be tried before "top".
    return f"(?P<{name}>{'|'.join(sorted(words, key=len, reverse=True))})"


_OBJECT = re.compile(
    rf"\ban? (?:{_any('size', SIZES)} )?(?:{_any('texture', TEXTURES)} )?(?:{_any('color', COLORS)} )?{_any('shape', SHAPES)}\b"
    rf"(?: at the {_any('place', CELLS)}\b)?"
)
_BACKGROUND = re.compile(rf"\b{_any('background', BACKGROUNDS)}\b")


def judge(caption: str, scene: Scene) -> Counter:
    """Counts what a caption says of a scene.

    Returns:
        For each of "shape", "color", "size", "texture", "place" and "background" how often it is said (`("said", name)`) and
        rightly so (`("right", name)`). An object is known by its shape; what is said of one that the scene lacks is wrong.
        `"missed"` counts the objects of the scene that the caption does not mention.
    """
    counts: Counter = Counter()
    found = [match.groupdict() for match in _OBJECT.finditer(caption)]
    for said in found:
        true = scene.object(said["shape"]) if said["shape"] in scene.shapes else None
        for name, value in said.items():
            if value is not None:
                counts["said", name] += 1
                counts["right", name] += true is not None and getattr(true, name) == value
    if background := _BACKGROUND.search(caption):
        counts["said", "background"] += 1
        counts["right", "background"] += background["background"] == scene.background
    counts["missed"] = len(set(scene.shapes) - {said["shape"] for said in found})
    return counts
