import json
import os

import pytest

from m2c.data.benchmarks.cirr import load_cirr


@pytest.mark.parametrize(
    "layout",
    [
        {},
        {"captions": "cirr/captions", "splits": "cirr/image_splits"},
        {"captions": "cirr/captions", "splits": "cirr/image_splits", "images": "cirr"},
        {"captions": "json"},
        {"captions": "", "splits": ""},
        {"captions": "cirr", "splits": "cirr", "images": "images"},
        {"images": "img_raw"},
    ],
)
def test_all_layouts_give_the_same_benchmark(tmp_path, make_cirr, picture, layout):
    benchmark = load_cirr(make_cirr(tmp_path, **layout))
    names = [f"dev-{number}-0-img0" for number in range(8)]
    assert (benchmark.name, benchmark.split, benchmark.category) == ("cirr", "val", None)
    assert benchmark.gallery["id"] == names
    assert benchmark.picture(5).tobytes() == picture(5).tobytes()
    assert len(benchmark.queries) == 3
    assert benchmark.queries[1] == {
        "id": "11",
        "reference_id": names[1],
        "captions": ["the kettle is blue, number 1"],
        "target_id": names[2],
        "subset_ids": [names[0], *names[2:6]],
        "answer_ids": [],
        "aspects": [],
        "shared_concept": None,
    }


def test_test1_has_no_targets_and_may_have_a_blank_caption(tmp_path, write_json, cirr_items):
    for item in cirr_items:
        del item["target_hard"], item["target_soft"]
    cirr_items[0]["caption"] = ""
    write_json(tmp_path / "captions" / "cap.rc2.test1.json", cirr_items)
    names = {name: f"./test1/{name}.png" for name in cirr_items[0]["img_set"]["members"]}
    write_json(tmp_path / "image_splits" / "split.rc2.test1.json", names)
    benchmark = load_cirr(tmp_path, "test1")
    assert benchmark.queries["target_id"] == [None] * 3
    assert benchmark.queries["captions"][0] == [""]
    assert all(len(subset) == 5 for subset in benchmark.queries["subset_ids"])


def test_images_of_the_training_split_lie_in_numbered_folders(tmp_path, write_json, cirr_items, picture, draw):
    names = {name: f"./train/7/{name}.png" for name in cirr_items[0]["img_set"]["members"]}
    write_json(tmp_path / "cap.rc2.train.json", cirr_items[:1])
    write_json(tmp_path / "split.rc2.train.json", names)
    draw(tmp_path / "img_raw" / "train" / "7" / f"{next(iter(names))}.png", 3)
    assert load_cirr(tmp_path, "train").picture(0).tobytes() == picture(3).tobytes()


def test_a_wrong_schema_names_file_item_and_key(tmp_path, make_cirr, cirr_items):
    del cirr_items[2]["target_hard"]
    with pytest.raises(ValueError, match=r"item 2 of .*cap\.rc2\.val\.json has no 'target_hard'"):
        load_cirr(make_cirr(tmp_path / "a"))
    del cirr_items[0]["img_set"]["members"]
    with pytest.raises(ValueError, match=r"'img_set' of item 0 of .*cap\.rc2\.val\.json has no 'members'"):
        load_cirr(make_cirr(tmp_path / "b"))


def test_a_split_file_must_give_paths(tmp_path, make_cirr, write_json):
    root = make_cirr(tmp_path)
    write_json(root / "image_splits" / "split.rc2.val.json", {"dev-0-0-img0": 7})
    with pytest.raises(ValueError, match=r"split\.rc2\.val\.json: 'dev-0-0-img0' must be a text, not 7"):
        load_cirr(root)


def test_a_reference_outside_the_split_is_an_error(tmp_path, make_cirr, cirr_items):
    cirr_items[1]["reference"] = "dev-9-9-img9"
    with pytest.raises(ValueError, match=r"item 1 of .*'dev-9-9-img9' \(reference_id\) is not among the 8 images"):
        load_cirr(make_cirr(tmp_path))


def test_a_root_one_level_too_high_or_low_is_named(tmp_path, make_cirr):
    make_cirr(tmp_path / "CIRR")
    with pytest.raises(ValueError, match="one level too high"):
        load_cirr(tmp_path)
    with pytest.raises(ValueError, match="one level too low"):
        load_cirr(tmp_path / "CIRR" / "dev")


def test_an_unknown_split_lists_what_there_is(tmp_path):
    with pytest.raises(ValueError, match="no split of CIRR 'test'; there is train, val, test1"):
        load_cirr(tmp_path, "test")


@pytest.mark.skipif("M2C_ANNOTATIONS" not in os.environ, reason="needs the real annotation files")
def test_counts_of_the_real_files(annotations):
    benchmark = load_cirr(annotations / "cirr")
    assert (len(benchmark.queries), len(benchmark.gallery)) == (4181, 2297)
    queries = benchmark.queries[:]
    assert {len(subset) for subset in queries["subset_ids"]} == {5}
    assert all(target in subset for target, subset in zip(queries["target_id"], queries["subset_ids"]))


@pytest.mark.parametrize("entry", ["", ".", "./"])
def test_an_entry_of_the_split_file_that_is_no_path_is_named(tmp_path, make_cirr, write_json, entry):
    root = make_cirr(tmp_path)
    path = root / "image_splits" / "split.rc2.val.json"
    write_json(path, {**json.loads(path.read_text()), "dev-4-0-img0": entry})
    with pytest.raises(ValueError, match=rf"{path}: 'dev-4-0-img0' must be the path of an image, not '{entry}'"):
        load_cirr(root)


@pytest.mark.parametrize("target", ["dev-7-0-img0", "dev-1-0-img0"])
def test_a_target_outside_the_set_or_the_reference_itself_is_an_error(tmp_path, make_cirr, cirr_items, target):
    cirr_items[1]["target_hard"] = target
    with pytest.raises(ValueError, match=rf"item 1 of .*: 'target_hard' '{target}' is not among the other members of its"):
        load_cirr(make_cirr(tmp_path))


@pytest.mark.parametrize("layout", [{}, {"captions": "", "splits": ""}])
def test_a_root_that_has_the_annotations_only_is_one_level_too_low(tmp_path, make_cirr, layout):
    folders = {key: f"cirr/{folder}" for key, folder in ({"captions": "captions", "splits": "image_splits"} | layout).items()}
    make_cirr(tmp_path, **folders)
    with pytest.raises(ValueError, match=rf"below {tmp_path}: the root given is one level too low"):
        load_cirr(tmp_path / "cirr")
