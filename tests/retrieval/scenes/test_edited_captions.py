from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from m2c.data.scenes.edits import ATTRIBUTES, Edit, apply_edits, random_edits
from m2c.data.scenes.language import CAPTIONS, Said, Wording, plain_wording
from m2c.data.scenes.world import Scene, SceneObject, random_scene, seeded
from m2c.retrieval.scenes.edited_captions import added_objects, edited, forgetful, joined, mistaken
from m2c.retrieval.scenes.reading import judge


seeds = st.integers(0, 10**9)
CIRCLE = SceneObject("circle", "red", "big", "striped", "top left")
MOON = SceneObject("moon", "blue", "small", "plain", "center")
SCENE = Scene((CIRCLE, MOON), "white")
NONE = Said(False, False, False, False)
TERSE = Wording("a photo of {objects}", ((MOON, NONE._replace(color=True)), (CIRCLE, NONE)), "white")


def drawn(seed: int) -> tuple[Wording, Scene, tuple[Edit, ...]]:
    rng = seeded(seed)
    scene = random_scene(rng)
    return plain_wording(rng, scene), scene, random_edits(rng, scene)


@given(seeds)
def test_the_edited_caption_speaks_of_the_edited_scene(seed):
    wording, scene, edits = drawn(seed)
    target, result = apply_edits(scene, edits), edited(wording, scene, edits)
    assert {item for item, _ in result.objects} == set(target.objects) and result.background == target.background
    counts = judge(result.text, target)
    assert counts.pop("missed") == 0
    assert all(counts["right", name] == count for (what, name), count in counts.items() if what == "said")


@given(seeds)
def test_what_an_edit_changes_is_said_and_nothing_else_is_told_or_kept_back(seed):
    wording, scene, edits = drawn(seed)
    before, result = dict(wording.objects), edited(wording, scene, edits)
    added = [edit.value for edit in edits if edit.kind == "add"]
    reshaped = {edit.value: edit.shape for edit in edits if edit.kind == "reshape"}
    for item, said in result.objects:
        shape = reshaped.get(item.shape, item.shape)
        changed = {ATTRIBUTES[edit.kind] for edit in edits if edit.shape == shape and edit.kind in ATTRIBUTES}
        kept = Said(True, True, True, True) if item in added else before[scene.object(shape)]
        assert said == kept._replace(**{name: True for name in changed - {"shape"}})
    says_background = "{background}" in wording.template or any(edit.kind == "background" for edit in edits)
    assert ("{background}" in result.template) == says_background and result.template.startswith(wording.template)
    removed = {edit.shape for edit in edits if edit.kind == "remove"}
    order = [item.shape for item, _ in wording.objects if item.shape not in removed]
    assert [reshaped.get(item.shape, item.shape) for item, _ in result.objects if item not in added] == order


@pytest.mark.parametrize(
    "edit, text",
    [
        (Edit("recolor", "circle", "green"), "a photo of a blue moon and a green circle"),
        (Edit("recolor", "moon", "green"), "a photo of a green moon and a circle"),
        (Edit("resize", "moon", "big"), "a photo of a big blue moon and a circle"),
        (Edit("retexture", "moon", "dotted"), "a photo of a dotted blue moon and a circle"),
        (Edit("move", "circle", "bottom"), "a photo of a blue moon and a circle at the bottom"),
        (Edit("reshape", "moon", "ring"), "a photo of a blue ring and a circle"),
        (Edit("remove", "moon", None), "a photo of a circle"),
        (Edit("background", None, "gray"), "a photo of a blue moon and a circle on a gray background"),
        (
            Edit("add", "star", SceneObject("star", "pink", "big", "plain", "top")),
            "a photo of a blue moon and a circle and a big plain pink star at the top",
        ),
    ],
)
def test_the_wording_is_kept(edit, text):
    assert edited(TERSE, SCENE, (edit,)).text == text


def test_of_an_object_that_the_caption_forgot_is_said_what_the_edits_tell():
    forgot = replace(TERSE, objects=TERSE.objects[:1])
    edits = (Edit("recolor", "circle", "green"), Edit("move", "circle", "bottom"))
    assert edited(forgot, SCENE, edits).text == "a photo of a blue moon and a green circle at the bottom"
    assert edited(forgot, SCENE, (Edit("remove", "circle", None),)).text == "a photo of a blue moon"


@pytest.mark.parametrize(
    "edits, objects",
    [
        ([Edit("recolor", "circle", "blue")], "a blue circle"),
        ([Edit("reshape", "circle", "star")], "a star"),
        ([Edit("move", "circle", "bottom")], "a circle at the bottom"),
        ([Edit("add", "star", SceneObject("star", "pink", "big", "plain", "top"))], "a big plain pink star at the top"),
        ([Edit("remove", "circle", None)], "nothing"),
        ([Edit("background", None, "gray")], "a gray background"),
        ([Edit("recolor", "circle", "blue"), Edit("resize", "circle", "small")], "a small blue circle"),
        ([Edit("recolor", "circle", "blue"), Edit("remove", "moon", None)], "a blue circle"),
        ([Edit("background", None, "gray"), Edit("resize", "moon", "big")], "a big moon and a gray background"),
    ],
)
def test_added_objects(edits, objects):
    assert added_objects(SCENE, tuple(edits)) == objects


@given(seeds, st.integers(1, 15))
def test_joined_captions_say_what_any_of_them_says(seed, count):
    rng = seeded(seed)
    scene = random_scene(rng)
    wordings = [plain_wording(rng, scene) for _ in range(count)]
    whole = joined(wordings)
    for item, said in whole.objects:
        assert list(said) == [any(dict(w.objects)[item][place] for w in wordings) for place in range(4)]
    assert [item for item, _ in whole.objects] == [item for item, _ in wordings[0].objects]
    assert ("{background}" in whole.template) == any("{background}" in w.template for w in wordings)
    if count == 1:
        assert whole == wordings[0]


@given(seeds)
def test_a_mistake_is_one_thing_seen_wrongly(seed):
    wording, scene, _ = drawn(seed)
    wrong = mistaken(seeded(seed, "mistake"), wording)
    different = [
        name
        for (true, said), (item, still) in zip(wording.objects, wrong.objects, strict=True)
        for name in ("shape", "color", "size", "texture", "place")
        if getattr(true, name) != getattr(item, name) or said != still
    ]
    assert len(different) + (wrong.background != wording.background) == 1 and wrong.template == wording.template
    assert len({item.shape for item, _ in wrong.objects}) == len(scene.objects), "no shape is seen twice"
    assert len({item.place for item, _ in wrong.objects}) == len(scene.objects)


def test_forgetting_takes_one_object_of_the_caption():
    assert {forgetful(seeded(n), TERSE).text for n in range(20)} == {"a photo of a blue moon", "a photo of a circle"}


def test_judging():
    counts = judge("a photo of a big red circle at the top and a star on a white background", SCENE)
    said = {"shape": 2, "color": 1, "size": 1, "place": 1, "background": 1}
    right = {**said, "shape": 1, "place": 0}
    expected = {("said", name): count for name, count in said.items()} | {("right", name): right[name] for name in said}
    assert counts == {**expected, "missed": 1}
    assert judge("", SCENE) == {"missed": 2}


@given(st.sampled_from(CAPTIONS), seeds)
def test_every_wording_is_read_whole(template, seed):
    wording, scene, _ = drawn(seed)
    counts = judge(replace(wording, template=template).text, scene)
    assert counts["said", "shape"] == len(scene.objects) and counts["missed"] == 0
    for place, name in enumerate(Said._fields):
        assert counts["said", name] == counts["right", name] == sum(said[place] for _, said in wording.objects)
    assert counts["said", "background"] == counts["right", "background"] == ("{background}" in template)
