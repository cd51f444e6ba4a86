"""Edits of a scene: what a modification text asks for."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from random import Random

from .world import BACKGROUNDS, COLORS, SIZES, TEXTURES, Scene, SceneObject, random_object


# Two edits in 40 % of the modifications.
TWO_EDITS = 0.4

# What an edit changes of the object that it is about.
ATTRIBUTES = {"recolor": "color", "reshape": "shape", "resize": "size", "retexture": "texture", "move": "place"}


@dataclass(frozen=True)
class Edit:
    """One change. `shape` names the object it is about (`None` for the background).

    `value` is the new colour, shape, size, texture, place or background; the [`SceneObject`] to add; or `None` to remove.
    """

    kind: str
    shape: str | None
    value: str | SceneObject | None


def apply_edit(scene: Scene, edit: Edit) -> Scene:
    """The scene after the edit. Raises `KeyError` if the edit is about an object that the scene lacks."""
    if edit.kind == "background":
        return Scene(scene.objects, edit.value)
    if edit.kind == "add":
        return Scene((*scene.objects, edit.value), scene.background)
    item = scene.object(edit.shape)
    others = tuple(other for other in scene.objects if other is not item)
    if edit.kind == "remove":
        return Scene(others, scene.background)
    return Scene((*others, replace(item, **{ATTRIBUTES[edit.kind]: edit.value})), scene.background)


def apply_edits(scene: Scene, edits: tuple[Edit, ...]) -> Scene:
    for edit in edits:
        scene = apply_edit(scene, edit)
    return scene


def _other(rng: Random, values, current: str) -> str:
    return rng.choice([value for value in values if value != current])


def _change(kind: str, values: Callable[[Scene], tuple[str, ...]]) -> Callable[[Random, Scene], Edit]:
    def draw(rng: Random, scene: Scene) -> Edit:
        item = rng.choice(scene.objects)
        return Edit(kind, item.shape, _other(rng, values(scene), getattr(item, ATTRIBUTES[kind])))

    return draw


def _add(rng: Random, scene: Scene) -> Edit:
    item = random_object(rng, scene.absent_shapes, scene.free_places)
    return Edit("add", item.shape, item)


_DRAW: dict[str, Callable[[Random, Scene], Edit]] = {
    "recolor": _change("recolor", lambda scene: tuple(COLORS)),
    "reshape": _change("reshape", lambda scene: scene.absent_shapes),
    "resize": _change("resize", lambda scene: SIZES),
    "retexture": _change("retexture", lambda scene: TEXTURES),
    "move": _change("move", lambda scene: scene.free_places),
    "add": _add,
    "remove": lambda rng, scene: Edit("remove", rng.choice(scene.shapes), None),
    "background": lambda rng, scene: Edit("background", None, _other(rng, BACKGROUNDS, scene.background)),
}
EDIT_KINDS = tuple(_DRAW)


def _possible(kind: str, scene: Scene) -> bool:
    if kind == "add":
        return len(scene.objects) < 3
    if kind == "remove":
        return len(scene.objects) > 1
    return True


def random_edit(rng: Random, scene: Scene) -> Edit:
    """One edit that the scene allows: a scene keeps one to three objects."""
    return _DRAW[rng.choice([kind for kind in EDIT_KINDS if _possible(kind, scene)])](rng, scene)


def random_edits(rng: Random, scene: Scene) -> tuple[Edit, ...]:
    """One or two edits of different kinds, each about something the reference scene shows, that change the scene."""
    first = random_edit(rng, scene)
    if rng.random() >= TWO_EDITS:
        return (first,)
    while True:
        second = random_edit(rng, scene)
        if second.kind == first.kind:
            continue
        # "remove the circle and make the circle blue" means nothing; nor does adding what the first edit makes.
        subjects = {edit.shape for edit in (first, second)} - {None}
        touches_identity = any(edit.kind in ("remove", "reshape", "add") for edit in (first, second))
        both_objects = first.shape is not None and second.shape is not None
        if touches_identity and both_objects and len(subjects) == 1:
            continue
        edited = apply_edits(scene, (first, second))
        if _consistent(edited) and edited != scene:
            return (first, second)


def _consistent(scene: Scene) -> bool:
    places = {item.place for item in scene.objects}
    return 1 <= len(scene.objects) <= 3 and len(set(scene.shapes)) == len(places) == len(scene.objects)
