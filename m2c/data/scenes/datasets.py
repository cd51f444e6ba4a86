"""The scenes world as data sets: image-caption pairs, triplets, and a composed-retrieval test set."""

import io
from collections import defaultdict
from random import Random

from datasets import Dataset, DatasetDict, Features, Image, List, Value

from .edits import apply_edits, random_edits
from .language import full_caption, modification_text, random_caption
from .rendering import render
from .world import Scene, random_scene, seeded


# Edits of the same reference that share a subset with the target.
SUBSET_DISTRACTORS = 4


def _png(scene: Scene, rng: Random) -> dict[str, bytes]:
    buffer = io.BytesIO()
    render(scene, rng).save(buffer, "PNG", compress_level=1)
    return {"bytes": buffer.getvalue(), "path": None}


def pairs(size: int, seed: int = 0) -> Dataset:
    """Image-caption pairs for stage 1.

    Args:
        size: number of pairs.
        seed: pairs of different seeds are independent; the same seed gives the same pairs on every platform, and a larger
            `size` only appends.

    Returns:
        Columns `image` and `caption`.
    """
    rows = defaultdict(list)
    for index in range(size):
        rng = seeded("pairs", seed, index)
        scene = random_scene(rng)
        rows["image"].append(_png(scene, rng))
        rows["caption"].append(random_caption(rng, scene))
    return Dataset.from_dict(rows, Features({"image": Image(), "caption": Value("string")}))


def triplets(
    size: int,
    seed: int = 0,
    wrong_targets: float = 0.0,
    wrong_captions: float = 0.0,
    target_caption_as_modification: bool = False,
) -> Dataset:
    """Triplets for stage 2, with a caption of the reference image.

    The switches make data of the quality that generated triplets have.

    Args:
        size: number of triplets.
        seed: as in [`pairs`].
        wrong_targets: share of triplets whose target is some other scene.
        wrong_captions: share of triplets whose reference caption describes some other scene.
        target_caption_as_modification: whether the modification text is a caption of the target instead of the edit.

    Returns:
        Columns `reference`, `target`, `modification` and `reference_caption`.
    """
    rows = defaultdict(list)
    for index in range(size):
        rng = seeded("triplets", seed, index)
        scene = random_scene(rng)
        edits = random_edits(rng, scene)
        modification = modification_text(rng, scene, edits)
        target = apply_edits(scene, edits)
        if target_caption_as_modification:
            modification = full_caption(target)
        if rng.random() < wrong_targets:
            target = random_scene(rng)
        described = random_scene(rng) if rng.random() < wrong_captions else scene
        rows["reference"].append(_png(scene, rng))
        rows["target"].append(_png(target, rng))
        rows["modification"].append(modification)
        rows["reference_caption"].append(full_caption(described))
    text = Value("string")
    features = {"reference": Image(), "target": Image(), "modification": text, "reference_caption": text}
    return Dataset.from_dict(rows, Features(features))


def composed_retrieval(num_queries: int = 500, seed: int = 0) -> DatasetDict:
    """A test set with hard distractors: the gallery holds, for every query, its reference, its target and four other edits.

    Returns:
        Two splits. `gallery` has `id` and `image`, in shuffled order. `queries` has `reference_id`, `modification`,
        `target_id`, `subset_ids` (the target and the four other edits of the reference), `answer_ids` (every gallery image
        that shows the edited scene, the target first), `reference_caption` and `target_caption`. The reference itself is to be
        left out of the ranking.
    """
    queries, scenes, images = [], [], []
    for index in range(num_queries):
        rng = seeded("composed-retrieval", seed, index)
        reference, edits, others = _query(rng)
        target = apply_edits(reference, edits)
        group = [reference, target, *others]
        first = len(scenes)
        scenes += group
        images += [_png(scene, rng) for scene in group]
        queries.append(
            {
                "reference_id": first,
                "modification": modification_text(rng, reference, edits),
                "target_id": first + 1,
                "subset_ids": list(range(first + 1, first + len(group))),
                "reference_caption": full_caption(reference),
                "target_caption": full_caption(target),
            }
        )
    by_scene = defaultdict(list)
    for position, scene in enumerate(scenes):
        by_scene[scene].append(position)
    for query in queries:
        target = query["target_id"]
        query["answer_ids"] = [target, *(i for i in by_scene[scenes[target]] if i != target)]
    return _as_datasets(queries, images, seeded("composed-retrieval", seed, "order"))


def _query(rng: Random) -> tuple[Scene, tuple, list[Scene]]:
    """A reference scene, the edits asked for, and other edits of it that all look different."""
    reference = random_scene(rng)
    edits = random_edits(rng, reference)
    seen = {reference, apply_edits(reference, edits)}
    others: list[Scene] = []
    while len(others) < SUBSET_DISTRACTORS:
        other = apply_edits(reference, random_edits(rng, reference))
        if other not in seen:
            seen.add(other)
            others.append(other)
    return reference, edits, others


def _as_datasets(queries: list[dict], images: list[dict], rng: Random) -> DatasetDict:
    order = list(range(len(images)))
    rng.shuffle(order)
    new_id = {old: new for new, old in enumerate(order)}
    for query in queries:
        for key in ("reference_id", "target_id"):
            query[key] = new_id[query[key]]
        for key in ("subset_ids", "answer_ids"):
            query[key] = [new_id[i] for i in query[key]]
        # Shuffled, so that the target's place in the list says nothing.
        rng.shuffle(query["subset_ids"])
    number, text = Value("int64"), Value("string")
    query_features = {
        "reference_id": number,
        "modification": text,
        "target_id": number,
        "subset_ids": List(number),
        "answer_ids": List(number),
        "reference_caption": text,
        "target_caption": text,
    }
    gallery = {"id": list(range(len(images))), "image": [images[old] for old in order]}
    return DatasetDict(
        queries=Dataset.from_list(queries, Features(query_features)),
        gallery=Dataset.from_dict(gallery, Features({"id": number, "image": Image()})),
    )
