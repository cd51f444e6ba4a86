"""The words of the scenes world: captions of a scene and modification texts for an edit."""

from dataclasses import dataclass
from random import Random
from typing import NamedTuple

from .edits import Edit
from .world import BACKGROUNDS, CELLS, COLORS, SHAPES, SIZES, TEXTURES, Scene, SceneObject


# A sixth of the captions speaks in the verbs of edits, so that CLIP learns words like "make" and "without".
EDIT_STYLE = 1 / 6
DROP_ATTRIBUTE = 0.3

CAPTIONS = (
    "{objects}",
    "a photo of {objects}",
    "a picture of {objects}",
    "an image of {objects}",
    "a photo that has {objects}",
    "a photo that shows {objects}",
    "there is {objects}",
    "{objects} on {background}",
    "{objects} on a {background} background",
    "{objects} with a {background} background",
    "a photo of {objects} on a {background} background",
    "a {background} photo of {objects}",
    "a {background} background with {objects}",
    "on a {background} background there is {objects}",
)
MODIFICATIONS = {
    "recolor": (
        "make the {shape} {value}",
        "change the {shape} to {value}",
        "the {shape} is {value}",
        "has a {value} {shape}",
        "the {shape} is now {value} instead of {old}",
    ),
    "reshape": (
        "make the {shape} a {value}",
        "change the {shape} to a {value}",
        "replace the {shape} with a {value}",
        "has a {value} instead of the {shape}",
        "turn the {shape} into a {value}",
    ),
    "resize": ("make the {shape} {value}", "the {shape} is {value}", "has a {value} {shape}", "the {shape} is now {value}"),
    "retexture": (
        "make the {shape} {value}",
        "the {shape} is {value}",
        "has a {value} {shape}",
        "change the {shape} to {value}",
        "the {shape} is now {value} instead of {old}",
    ),
    "move": (
        "move the {shape} to the {value}",
        "the {shape} is at the {value}",
        "the {shape} is now at the {value}",
        "has the {shape} at the {value}",
    ),
    "add": ("add {value}", "has {value}", "with {value}", "also has {value}", "there is also {value}"),
    "remove": ("remove the {shape}", "without the {shape}", "no {shape}", "has no {shape}", "the {shape} is gone"),
    "background": (
        "make the background {value}",
        "change the background to {value}",
        "on a {value} background",
        "has a {value} background",
        "the background is {value}",
    ),
}


def article(phrase: str) -> str:
    return f"an {phrase}" if phrase[0] in "aeiou" else f"a {phrase}"


class Said(NamedTuple):
    """Which attributes of an object a caption says; it always says the shape."""

    size: bool
    texture: bool
    color: bool
    place: bool


@dataclass(frozen=True)
class Wording:
    """A caption before it is written out: one of [`CAPTIONS`], the objects in order, and what it says of each."""

    template: str
    objects: tuple[tuple[SceneObject, Said], ...]
    background: str

    @property
    def text(self) -> str:
        objects = " and ".join(phrase(item, said) for item, said in self.objects)
        return self.template.format(objects=objects, background=self.background)


def phrase(item: SceneObject, said: Said) -> str:
    """The object with the attributes that are said, e.g. "a red circle at the top left"."""
    words = [item.size] * said.size + [item.texture] * said.texture + [item.color] * said.color + [item.shape]
    return article(" ".join(words)) + f" at the {item.place}" * said.place


def describe(item: SceneObject) -> str:
    """Every attribute of the object, e.g. "a big striped red circle at the top left"."""
    return phrase(item, Said(True, True, True, True))


def full_caption(scene: Scene) -> str:
    """A caption that names everything there is to know of the scene."""
    return f"a photo of {' and '.join(map(describe, scene.objects))} on {article(scene.background)} background"


def random_caption(rng: Random, scene: Scene) -> str:
    """A caption in the style of captions or, sometimes, of modification texts."""
    return _edit_style_caption(rng, scene) if rng.random() < EDIT_STYLE else plain_caption(rng, scene)


def plain_caption(rng: Random, scene: Scene) -> str:
    """A caption as people write them: some attributes are not mentioned, the wording varies."""
    return plain_wording(rng, scene).text


def plain_wording(rng: Random, scene: Scene) -> Wording:
    """What [`plain_caption`] writes out."""
    objects = list(scene.objects)
    rng.shuffle(objects)
    drop = DROP_ATTRIBUTE if rng.random() < 0.5 else 0.0
    said = [Said(*(rng.random() >= drop for _ in range(4))) for _ in objects]
    return Wording(rng.choice(CAPTIONS), tuple(zip(objects, said)), scene.background)


def _edit_style_caption(rng: Random, scene: Scene) -> str:
    """Facts of the scene in the words of a modification text: "make the circle blue and no square"."""
    clauses = []
    for _ in range(rng.choice((1, 2, 2, 3))):
        item = rng.choice(scene.objects)
        true_edits = (
            Edit("recolor", item.shape, item.color),
            Edit("resize", item.shape, item.size),
            Edit("retexture", item.shape, item.texture),
            Edit("move", item.shape, item.place),
            Edit("add", item.shape, item),
            Edit("remove", rng.choice(scene.absent_shapes), None),
            Edit("background", None, scene.background),
            Edit("reshape", rng.choice(scene.absent_shapes), item.shape),
        )
        clauses.append(_clause(rng, rng.choice(true_edits), old=None))
    return " and ".join(dict.fromkeys(clauses))


def modification_text(rng: Random, scene: Scene, edits: tuple[Edit, ...]) -> str:
    """The edits of the reference `scene` in words, in one of many wordings."""
    return " and ".join(_clause(rng, edit, old=_old_value(scene, edit)) for edit in edits)


def _old_value(scene: Scene, edit: Edit) -> str | None:
    attribute = {"recolor": "color", "retexture": "texture"}.get(edit.kind)
    return getattr(scene.object(edit.shape), attribute) if attribute else None


def _clause(rng: Random, edit: Edit, old: str | None) -> str:
    templates = [template for template in MODIFICATIONS[edit.kind] if old or "{old}" not in template]
    value = describe(edit.value) if isinstance(edit.value, SceneObject) else edit.value
    return rng.choice(templates).format(shape=edit.shape, value=value, old=old)


def vocabulary() -> list[str]:
    """Every word that a caption or a modification text can hold, sorted."""
    templates = [*CAPTIONS, *(template for group in MODIFICATIONS.values() for template in group)]
    fixed = " ".join(templates)
    for field in ("objects", "background", "shape", "value", "old"):
        fixed = fixed.replace("{" + field + "}", " ")
    names = [*SHAPES, *COLORS, *SIZES, *TEXTURES, *CELLS, *BACKGROUNDS]
    return sorted({*fixed.split(), *" ".join(names).split(), "a", "an", "and", "at", "background"})
