"""The vocabulary of the scenes world and the symbolic scenes drawn from it."""

from dataclasses import dataclass
from random import Random


SHAPES = ("circle", "square", "triangle", "diamond", "ring", "cross", "star", "moon")
COLORS = {
    "red": (214, 39, 40),
    "orange": (255, 140, 0),
    "yellow": (245, 215, 40),
    "green": (40, 150, 60),
    "blue": (40, 80, 220),
    "purple": (130, 50, 170),
    "pink": (250, 140, 190),
    "brown": (125, 75, 35),
}
SIZES = ("small", "big")
TEXTURES = ("plain", "striped", "dotted")
PLACES = (
    ("top left", "top", "top right"),
    ("left", "center", "right"),
    ("bottom left", "bottom", "bottom right"),
)
CELLS = tuple(place for row in PLACES for place in row)
BACKGROUNDS = {
    "white": (245, 245, 245),
    "gray": (150, 150, 150),
    "black": (20, 20, 20),
    "cyan": (150, 215, 235),
    "beige": (235, 215, 170),
}

# One, two or three objects, out of ten scenes.
OBJECT_COUNTS = (1, 1, 2, 2, 2, 2, 3, 3, 3, 3)


@dataclass(frozen=True)
class SceneObject:
    """One object: its shape, and the attributes that an edit can change."""

    shape: str
    color: str
    size: str
    texture: str
    place: str


@dataclass(frozen=True)
class Scene:
    """Objects of distinct shapes in distinct places, on a background.

    Objects are kept in the order of [`SHAPES`], so two scenes that look the same compare equal.
    """

    objects: tuple[SceneObject, ...]
    background: str

    def __post_init__(self):
        object.__setattr__(self, "objects", tuple(sorted(self.objects, key=lambda o: SHAPES.index(o.shape))))

    @property
    def shapes(self) -> tuple[str, ...]:
        return tuple(item.shape for item in self.objects)

    @property
    def free_places(self) -> tuple[str, ...]:
        taken = {item.place for item in self.objects}
        return tuple(place for place in CELLS if place not in taken)

    @property
    def absent_shapes(self) -> tuple[str, ...]:
        return tuple(shape for shape in SHAPES if shape not in self.shapes)

    def object(self, shape: str) -> SceneObject:
        """The object of this shape. Raises `KeyError` where the scene has none."""
        for item in self.objects:
            if item.shape == shape:
                return item
        raise KeyError(f"the scene has no {shape}; it has {', '.join(self.shapes)}")


def seeded(*parts: object) -> Random:
    """A generator that depends on `parts` alone, the same on every platform and Python version."""
    return Random(":".join(map(str, parts)))


def random_object(rng: Random, shapes: tuple[str, ...], places: tuple[str, ...]) -> SceneObject:
    return SceneObject(
        shape=rng.choice(shapes),
        color=rng.choice(tuple(COLORS)),
        size=rng.choice(SIZES),
        texture=rng.choice(TEXTURES),
        place=rng.choice(places),
    )


def random_scene(rng: Random) -> Scene:
    """A scene of one to three objects."""
    scene = Scene((), rng.choice(tuple(BACKGROUNDS)))
    for _ in range(rng.choice(OBJECT_COUNTS)):
        item = random_object(rng, scene.absent_shapes, scene.free_places)
        scene = Scene((*scene.objects, item), scene.background)
    return scene
