"""Draws a scene as a small anti-aliased picture.

Only additions, multiplications, divisions, square roots and comparisons are used, which IEEE 754 rounds alike everywhere, so
a seed gives the same pixels on every platform. (Sines and cosines come from rational parametrisation, not from libm.)
"""

from random import Random

import numpy as np
from PIL import Image

from .world import BACKGROUNDS, CELLS, COLORS, Scene, SceneObject


IMAGE_SIZE = 64
RADIUS = {"small": 6.5, "big": 10.0}  # pixels
_CELL = IMAGE_SIZE / 3
_GRID = np.arange(IMAGE_SIZE) + 0.5

# Normals of a regular pentagon's sides: cos and sin of 90, 162, 234, 306 and 18 degrees.
_PENTAGON = (
    (0.0, 1.0),
    (-0.9510565162951535, 0.3090169943749474),
    (-0.5877852522924731, -0.8090169943749475),
    (0.5877852522924731, -0.8090169943749475),
    (0.9510565162951535, 0.3090169943749474),
)


def _distance(shape: str, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Signed distance to the outline of a shape of radius 1, negative inside; v points down."""
    au, av = np.abs(u), np.abs(v)
    radius = np.sqrt(u * u + v * v)
    if shape == "circle":
        return radius - 0.95
    if shape == "square":
        return np.maximum(au, av) - 0.82
    if shape == "triangle":
        return np.maximum(0.866 * au - 0.5 * v - 0.5, v - 0.5)
    if shape == "diamond":
        return (au / 0.7 + av - 1.0) * 0.6
    if shape == "ring":
        return np.abs(radius - 0.7) - 0.25
    if shape == "cross":
        return np.maximum(np.minimum(au, av) - 0.3, np.maximum(au, av) - 0.95)
    if shape == "moon":
        return np.maximum(radius - 1.0, 0.8 - np.sqrt((u - 0.55) * (u - 0.55) + v * v))
    # A star is what lies outside at most one of the five sides of its inner pentagon: the second largest side distance.
    sides = np.stack([x * u + y * v for x, y in _PENTAGON]) - 0.36
    return np.sort(sides, axis=0)[-2]


def _shade(texture: str, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """How far each pixel goes from the object's colour towards dark (negative) or light (positive), in -1..1."""
    if texture == "striped":
        wave = np.abs((x + y) / 5.0 % 1.0 - 0.5)
        return -0.65 * np.clip((wave - 0.25) * 6 + 0.5, 0, 1)
    if texture == "dotted":
        dx, dy = x / 4.6 % 1.0 - 0.5, y / 4.6 % 1.0 - 0.5
        return 0.85 * np.clip((0.3 - np.sqrt(dx * dx + dy * dy)) * 6 + 0.5, 0, 1)
    return np.zeros(np.broadcast_shapes(x.shape, y.shape))


def _jittered_color(rng: Random, color: tuple[int, int, int], amount: float) -> np.ndarray:
    return np.array([min(255.0, max(0.0, channel + amount * (2 * rng.random() - 1))) for channel in color])


def _draw(canvas: np.ndarray, item: SceneObject, rng: Random, zoom: float) -> None:
    row, column = divmod(CELLS.index(item.place), 3)
    middle = IMAGE_SIZE / 2
    cx = middle + zoom * ((column + 0.5) * _CELL - middle) + 4 * rng.random() - 2
    cy = middle + zoom * ((row + 0.5) * _CELL - middle) + 4 * rng.random() - 2
    radius = RADIUS[item.size] * zoom * (0.92 + 0.16 * rng.random())
    tangent = 0.12 * (2 * rng.random() - 1)  # of half the rotation: about 14 degrees either way
    square = tangent * tangent
    cosine, sine = (1 - square) / (1 + square), 2 * tangent / (1 + square)
    color = _jittered_color(rng, COLORS[item.color], 14)

    # Only the window that the object can touch.
    left, top = max(0, int(cx - radius - 2)), max(0, int(cy - radius - 2))
    right, bottom = int(cx + radius + 3), int(cy + radius + 3)
    dx = (_GRID[left:right] - cx)[None, :]
    dy = (_GRID[top:bottom] - cy)[:, None]
    x, y = cosine * dx + sine * dy, cosine * dy - sine * dx
    mask = np.clip(0.5 - radius * _distance(item.shape, x / radius, y / radius), 0, 1)[..., None]
    shade = _shade(item.texture, x + radius, y + radius)[..., None]
    paint = np.where(shade < 0, color * (1 + shade), color + (255 - color) * shade)
    window = canvas[top:bottom, left:right]
    window += mask * (paint - window)


def render_array(scene: Scene, rng: Random) -> np.ndarray:
    """Pixels of the scene, `uint8` of shape `(64, 64, 3)`. `rng` jitters place, size, rotation, zoom and colour."""
    zoom = 0.94 + 0.1 * rng.random()
    background = _jittered_color(rng, BACKGROUNDS[scene.background], 8)
    canvas = np.broadcast_to(background, (IMAGE_SIZE, IMAGE_SIZE, 3)).copy()
    for item in scene.objects:
        _draw(canvas, item, rng, zoom)
    return np.floor(canvas + 0.5).astype(np.uint8)


def render(scene: Scene, rng: Random) -> Image.Image:
    """The scene as a 64 x 64 RGB picture."""
    return Image.fromarray(render_array(scene, rng))
