import json
import os

import pytest

from m2c.data.benchmarks.circo import load_circo, read_queries


@pytest.mark.parametrize(
    "layout",
    [
        {},
        {"coco": ""},
        {"coco": "coco2017", "queries": ""},
        {"coco": "images", "info": "", "queries": "json"},
        {"coco": "", "info": "", "queries": ""},
    ],
)
def test_all_layouts_give_the_same_benchmark(tmp_path, make_circo, layout):
    benchmark = load_circo(make_circo(tmp_path, **layout))
    assert benchmark.gallery["id"] == ["1", "3", "5", "7", "9", "11"]
    assert benchmark.picture(0).size == (24, 16)
    assert benchmark.queries[0] == {
        "id": "0",
        "reference_id": "5",
        "captions": ["has two lamps"],
        "target_id": "7",
        "subset_ids": [],
        "answer_ids": ["7", "9"],
        "aspects": ["cardinality", "addition"],
        "shared_concept": "a desk",
    }


def test_the_test_split_has_no_answers(tmp_path, make_circo):
    query = load_circo(make_circo(tmp_path), "test").queries[0]
    assert query["target_id"] is None and query["answer_ids"] == [] and query["aspects"] == []
    assert query["shared_concept"] == "a desk"


def test_without_the_list_of_images_there_is_no_gallery_but_queries(tmp_path, make_circo):
    root = make_circo(tmp_path)
    (root / "COCO2017_unlabeled" / "annotations" / "image_info_unlabeled2017.json").unlink()
    with pytest.raises(ValueError, match=r"image_info_unlabeled2017\.json was not found .* It lists CIRCO's gallery"):
        load_circo(root)
    assert [query["id"] for query in read_queries(root / "annotations" / "val.json", "val")] == ["0", "1"]


def test_a_wrong_schema_names_file_item_and_key(tmp_path, make_circo, write_json):
    root = make_circo(tmp_path)
    with pytest.raises(ValueError, match=r"item 0 of .*test\.json has no 'target_img_id'"):
        read_queries(root / "annotations" / "test.json", "val")
    info = write_json(root / "COCO2017_unlabeled" / "annotations" / "image_info_unlabeled2017.json", {"images": [{"id": 1}]})
    with pytest.raises(ValueError, match=rf"item 0 of 'images' of {info} has no 'file_name'"):
        load_circo(root)
    write_json(info, {"annotations": []})
    with pytest.raises(ValueError, match=rf"{info} has no 'images'"):
        load_circo(root)


def test_half_written_annotations_are_named(tmp_path, make_circo):
    path = make_circo(tmp_path) / "annotations" / "val.json"
    path.write_text(path.read_text()[:-40])
    with pytest.raises(ValueError, match=rf"{path} is no complete JSON"):
        load_circo(tmp_path)


def test_an_answer_outside_the_gallery_is_an_error(tmp_path, make_circo, write_json):
    path = make_circo(tmp_path) / "annotations" / "val.json"
    items = json.loads(path.read_text())
    items[1]["gt_img_ids"].append(8)
    write_json(path, items)
    with pytest.raises(ValueError, match=r"item 1 of .*'8' \(answer_ids\) is not among the 6 images"):
        load_circo(tmp_path)


def test_a_root_one_level_too_high_or_low_is_named(tmp_path, make_circo):
    make_circo(tmp_path / "CIRCO")
    with pytest.raises(ValueError, match="one level too high"):
        load_circo(tmp_path)
    with pytest.raises(ValueError, match="one level too low"):
        load_circo(tmp_path / "CIRCO" / "COCO2017_unlabeled")


def test_an_unknown_split_lists_what_there_is(tmp_path):
    with pytest.raises(ValueError, match="no split of CIRCO 'train'; there is val, test"):
        load_circo(tmp_path, "train")


@pytest.mark.skipif("M2C_ANNOTATIONS" not in os.environ, reason="needs the real annotation files")
def test_counts_of_the_real_files(annotations):
    queries = read_queries(annotations / "circo" / "val.json", "val")
    assert [query["id"] for query in queries] == [str(number) for number in range(220)]
    assert all(query["answer_ids"][0] == query["target_id"] for query in queries)
    with pytest.raises(ValueError, match="image_info_unlabeled2017"):
        load_circo(annotations / "circo")


def test_a_root_that_has_the_annotations_only_is_one_level_too_low(tmp_path, make_circo):
    make_circo(tmp_path, coco="")
    with pytest.raises(ValueError, match=rf"below {tmp_path}: the root given is one level too low"):
        load_circo(tmp_path / "annotations")
    (tmp_path / "unlabeled2017").rename(tmp_path / "elsewhere")
    assert len(load_circo(tmp_path / "annotations").gallery) == 6, "images that are nowhere are reported as missing"


def test_a_query_without_any_answer_is_an_error(tmp_path, make_circo, write_json):
    path = make_circo(tmp_path) / "annotations" / "val.json"
    items = json.loads(path.read_text())
    items[1]["gt_img_ids"] = []
    write_json(path, items)
    with pytest.raises(ValueError, match=rf"item 1 of {path}: 'gt_img_ids' must be a list of one or more whole numbers"):
        load_circo(tmp_path)
