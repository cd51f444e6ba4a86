"""What an editor of scenes should reply: the caption of the edited scene, and the objects that an edit adds.

All of it works on the scene and on what a caption says of it, never on strings.
"""

from dataclasses import replace
from random import Random

from m2c.data.scenes.edits import ATTRIBUTES, Edit
from m2c.data.scenes.language import Said, Wording, phrase
from m2c.data.scenes.world import BACKGROUNDS, COLORS, SIZES, TEXTURES, Scene, SceneObject


ON_BACKGROUND = " on a {background} background"
NOTHING = "nothing"
_ALL, _NONE = Said(True, True, True, True), Said(False, False, False, False)


def edited(wording: Wording, scene: Scene, edits: tuple[Edit, ...]) -> Wording:
    """The caption of the edited scene in the words of the caption.

    What an edit changes is always said; what the caption leaves out of the rest stays out. An object that the caption forgot
    and an edit names is said at the end, with no more than the edit tells of it.

    Args:
        wording: a caption of `scene`.
        scene: the scene before the edits.
        edits: as [`~m2c.data.scenes.edits.random_edits`] draws them.
    """
    for edit in edits:
        wording = _apply(wording, scene, edit)
    return wording


def _apply(wording: Wording, scene: Scene, edit: Edit) -> Wording:
    if edit.kind == "background":
        return replace(_with_background(wording), background=edit.value)
    if edit.kind == "add":
        return replace(wording, objects=(*wording.objects, (edit.value, _ALL)))
    if edit.kind == "remove":
        return replace(wording, objects=tuple(pair for pair in wording.objects if pair[0].shape != edit.shape))
    objects = wording.objects
    if edit.shape not in {item.shape for item, _ in objects}:
        objects = (*objects, (scene.object(edit.shape), _NONE))
    changed = (_change(item, said, edit) if item.shape == edit.shape else (item, said) for item, said in objects)
    return replace(wording, objects=tuple(changed))


def _change(item: SceneObject, said: Said, edit: Edit) -> tuple[SceneObject, Said]:
    attribute = ATTRIBUTES[edit.kind]
    # The shape is said anyway.
    said = said if attribute == "shape" else said._replace(**{attribute: True})
    return replace(item, **{attribute: edit.value}), said


def _with_background(wording: Wording) -> Wording:
    if "{background}" in wording.template:
        return wording
    return replace(wording, template=wording.template + ON_BACKGROUND)


def joined(wordings: list[Wording]) -> Wording:
    """One caption of all that several captions of the same scene say, in the words of the first."""
    first = wordings[0]
    said = {}
    for wording in wordings:
        for item, more in wording.objects:
            known = said.get(item, _NONE)
            said[item] = Said(*(a or b for a, b in zip(known, more)))
    whole = replace(first, objects=tuple(said.items()))
    return _with_background(whole) if any("{background}" in wording.template for wording in wordings) else whole


def added_objects(scene: Scene, edits: tuple[Edit, ...]) -> str:
    """The objects that the edits bring, with no more than the edits tell of them: "a blue circle", or "nothing"."""
    # The edits of a caption that says nothing leave just what they tell.
    silent = Wording("{objects}", (), scene.background)
    told = [phrase(item, said) for item, said in edited(silent, scene, edits).objects]
    told += [f"a {edit.value} background" for edit in edits if edit.kind == "background"]
    return " and ".join(told) or NOTHING


def mistaken(rng: Random, wording: Wording) -> Wording:
    """The caption with one mistake: the background, an attribute, or, every other time, a shape misread."""
    kind = "shape" if rng.random() < 0.5 else rng.choice(("color", "size", "texture", "place", "background"))
    shown = Scene(tuple(item for item, _ in wording.objects), wording.background)
    if kind == "background":
        return replace(wording, background=rng.choice([name for name in BACKGROUNDS if name != wording.background]))
    values = {
        "color": tuple(COLORS),
        "size": SIZES,
        "texture": TEXTURES,
        "place": shown.free_places,
        "shape": shown.absent_shapes,
    }
    index = rng.randrange(len(wording.objects))
    item, said = wording.objects[index]
    value = rng.choice([value for value in values[kind] if value != getattr(item, kind)])
    objects = list(wording.objects)
    objects[index] = (replace(item, **{kind: value}), said)
    return replace(wording, objects=tuple(objects))


def forgetful(rng: Random, wording: Wording) -> Wording:
    """The caption without one of its objects."""
    objects = list(wording.objects)
    del objects[rng.randrange(len(objects))]
    return replace(wording, objects=tuple(objects))
