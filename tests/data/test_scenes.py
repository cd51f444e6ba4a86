import hashlib
import io
import json
from collections import defaultdict

import pytest
import torch
from datasets import load_dataset
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from transformers import AutoTokenizer, CLIPModel

from m2c.data import scenes
from m2c.data.image_folder import write_image_folder
from m2c.data.scenes.datasets import _query
from m2c.data.scenes.edits import EDIT_KINDS, apply_edits, random_edits
from m2c.data.scenes.language import full_caption, modification_text, plain_caption, random_caption
from m2c.data.scenes.rendering import render_array
from m2c.data.scenes.train_clip import build_tokenizer, parse_args, recall_among
from m2c.data.scenes.world import BACKGROUNDS, CELLS, random_scene, seeded


seeds = st.integers(0, 10**9)


@given(seeds)
def test_scenes_are_well_formed(seed):
    scene = random_scene(seeded(seed))
    assert 1 <= len(scene.objects) <= 3 and scene.background in BACKGROUNDS
    assert len(set(scene.shapes)) == len({item.place for item in scene.objects}) == len(scene.objects)


@given(seeds)
def test_edits_change_the_scene_and_keep_it_well_formed(seed):
    rng = seeded(seed)
    scene = random_scene(rng)
    edits = random_edits(rng, scene)
    edited = apply_edits(scene, edits)
    assert edited != scene and 1 <= len(edits) <= 2 and 1 <= len(edited.objects) <= 3
    assert len(set(edited.shapes)) == len({item.place for item in edited.objects}) == len(edited.objects)
    for edit in edits:
        if edit.shape is not None and edit.kind != "add":
            assert edit.shape in scene.shapes, "an edit is about something that the reference shows"


def test_all_kinds_of_edits_occur_and_four_in_ten_are_double():
    drawn = []
    for seed in range(1000):
        rng = seeded(seed)
        drawn.append(random_edits(rng, random_scene(rng)))
    assert {edit.kind for edits in drawn for edit in edits} == set(EDIT_KINDS)
    assert 0.35 < sum(len(edits) == 2 for edits in drawn) / len(drawn) < 0.45


@given(seeds)
def test_every_word_is_in_the_vocabulary_and_fits_the_context(seed):
    rng, tokenizer = seeded(seed), build_tokenizer()
    scene = random_scene(rng)
    edits = random_edits(rng, scene)
    texts = [full_caption(scene), random_caption(rng, scene), modification_text(rng, scene, edits)]
    for ids in tokenizer([*texts, f"a photo of * that {texts[2]}"]).input_ids:
        assert tokenizer.unk_token_id not in ids and len(ids) <= tokenizer.model_max_length


@given(seeds)
def test_a_full_caption_tells_scenes_apart(seed):
    rng = seeded(seed)
    scene = random_scene(rng)
    assert full_caption(apply_edits(scene, random_edits(rng, scene))) != full_caption(scene)


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]


def test_pixels_and_words_are_the_same_on_every_platform():
    """Pinned. If the world is changed on purpose, the shipped CLIP has to be trained again."""
    pictures = b"".join(render_array(random_scene(seeded(i)), seeded(i, "jitter")).tobytes() for i in range(64))
    triplets = scenes.triplets(64, seed=5)
    words = "\n".join([*triplets["modification"], *triplets["reference_caption"], *scenes.pairs(64)["caption"]])
    assert (digest(pictures), digest(words.encode())) == ("e65ddf99071bcb77", "9fa95be314e332ab")


def test_an_object_is_drawn_in_its_place():
    lone = [scene for scene in (random_scene(seeded(seed)) for seed in range(300)) if len(scene.objects) == 1]
    assert len(lone) > 40
    for index, scene in enumerate(lone):
        pixels = render_array(scene, seeded(index)).astype(int)
        row, column = divmod(CELLS.index(scene.objects[0].place), 3)
        far_corner = pixels[0 if row == 2 else 63, 0 if column == 2 else 63]
        rows, columns = (abs(pixels - far_corner).sum(-1) > 40).nonzero()
        assert abs(rows.mean() - (row + 0.5) * 64 / 3) < 7 and abs(columns.mean() - (column + 0.5) * 64 / 3) < 7


def test_a_larger_set_begins_with_the_smaller_and_seeds_differ():
    small, large, other = scenes.pairs(5, seed=3), scenes.pairs(9, seed=3), scenes.pairs(5, seed=4)
    assert large["caption"][:5] == small["caption"][:] != other["caption"][:]
    assert [image.tobytes() for image in large["image"][:5]] == [image.tobytes() for image in small["image"][:]]
    assert small[0]["image"].size == (64, 64) and small[0]["image"].mode == "RGB"


def test_switches_for_low_quality_triplets():
    good = scenes.triplets(40)
    wrong_targets = scenes.triplets(40, wrong_targets=0.5)
    wrong_captions = scenes.triplets(40, wrong_captions=0.5)
    captioned = scenes.triplets(40, target_caption_as_modification=True)
    assert wrong_captions["modification"][:] == wrong_targets["modification"][:] == good["modification"][:]
    changed = sum(a != b for a, b in zip(wrong_captions["reference_caption"], good["reference_caption"]))
    assert 10 <= changed <= 30
    assert all(text.startswith("a photo of") for text in captioned["modification"])
    assert captioned["reference_caption"][:] == good["reference_caption"][:]


@pytest.fixture(scope="module")
def benchmark():
    return scenes.composed_retrieval(60, seed=1)


def test_composed_retrieval(benchmark):
    gallery, queries = benchmark["gallery"], benchmark["queries"]
    assert len(gallery) == 60 * 6 and gallery["id"][:] == list(range(360))
    used = []
    for query in queries:
        assert len(set(query["subset_ids"])) == 5 and query["target_id"] in query["subset_ids"]
        assert query["reference_id"] not in query["subset_ids"] + query["answer_ids"]
        assert query["answer_ids"][0] == query["target_id"]
        used += [query["reference_id"], *query["subset_ids"]]
    assert sorted(used) == list(range(360))
    places = [query["subset_ids"].index(query["target_id"]) for query in queries]
    assert len(set(places)) == 5, "the place of the target must say nothing"


def test_answers_are_all_images_of_the_edited_scene():
    """Every picture of the gallery is drawn again from the seed, to know which scene it shows."""
    queries, gallery = (scenes.composed_retrieval(700, seed=0)[split] for split in ("queries", "gallery"))
    shown = {}
    for index in range(700):
        rng = seeded("composed-retrieval", 0, index)
        reference, edits, others = _query(rng)
        for scene in (reference, apply_edits(reference, edits), *others):
            shown[render_array(scene, rng).tobytes()] = full_caption(scene)
    caption_of = [shown[image.tobytes()] for image in gallery["image"]]
    images_of = defaultdict(set)
    for position, caption in enumerate(caption_of):
        images_of[caption].add(position)
    for query in queries:
        assert set(query["answer_ids"]) == images_of[query["target_caption"]]
        assert caption_of[query["reference_id"]] == query["reference_caption"]
    assert any(len(query["answer_ids"]) > 1 for query in queries), "the test set is large enough for coincidences"


def test_image_folders_are_read_by_others(tmp_path, benchmark):
    triplets = scenes.triplets(6)
    write_image_folder(triplets, tmp_path / "triplets")
    loaded = load_dataset("imagefolder", data_dir=str(tmp_path / "triplets"), split="train", cache_dir=str(tmp_path / "cache"))
    assert set(loaded.column_names) == {"reference", "target", "modification", "reference_caption"}
    assert loaded["modification"][:] == triplets["modification"][:]
    assert loaded[3]["target"].tobytes() == triplets[3]["target"].tobytes()

    write_image_folder(benchmark, tmp_path / "benchmark")
    gallery = load_dataset(
        "imagefolder", data_dir=str(tmp_path / "benchmark" / "gallery"), split="train", cache_dir=str(tmp_path / "cache")
    )
    assert len(gallery) == 360 and isinstance(gallery[0]["image"], Image.Image)


def test_image_folder_leaves_a_full_folder_alone(tmp_path):
    (tmp_path / "mine.txt").write_text("precious")
    with pytest.raises(FileExistsError, match="not empty"):
        write_image_folder(scenes.pairs(2), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_image_folder_keeps_the_files_as_they_are(tmp_path):
    buffer = io.BytesIO()
    Image.effect_noise((20, 20), 50).save(buffer, "JPEG")
    data = scenes.pairs(1).map(lambda row: {"image": {"bytes": buffer.getvalue(), "path": None}, "caption": "noise"})
    write_image_folder(data, tmp_path / "out")
    assert (tmp_path / "out" / "image" / "000000.jpeg").read_bytes() == buffer.getvalue()


def test_the_shipped_clip():
    model = CLIPModel.from_pretrained(scenes.CLIP_PATH, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(scenes.CLIP_PATH)
    assert len(tokenizer) == model.config.text_config.vocab_size and model.config.text_config.eos_token_id != 2
    assert tokenizer.get_vocab() == build_tokenizer().get_vocab()
    assert sum(path.stat().st_size for path in scenes.CLIP_PATH.iterdir()) < 8e6
    assert recall_among(model, tokenizer, plain_caption, rounds=2) > 0.78
    assert recall_among(model, tokenizer, lambda rng, scene: full_caption(scene), rounds=2) > 0.95


def test_the_record_of_the_shipped_clip_names_the_settings_of_the_script():
    record = json.loads((scenes.CLIP_PATH / "training.json").read_text())
    settings = vars(parse_args(["--output", "unused"]))
    assert {name: record[name] for name in settings if name != "output"} == {k: v for k, v in settings.items() if k != "output"}
