"""A file that is not what it should be is named, with what to do."""

import gzip
import json
import zipfile

import pytest

from m2c.evaluation.submissions.reading import find_gallery, has_targets, read_annotations, read_predictions


def test_a_broken_file_is_named(tmp_path):
    path = tmp_path / "predictions.json"

    def refuses(data: bytes, reason: str) -> None:
        path.write_bytes(data)
        with pytest.raises(ValueError, match=reason) as error:
            read_predictions(path)
        assert str(path) in str(error.value)

    refuses(b"", "is empty; write or download it again")
    refuses(b" \n", "is empty")
    refuses(b'{"0": [1, 2', "not JSON, or cut off: .* line 1, column 12; write or download it again")
    refuses(b"<!DOCTYPE html>", "not JSON")
    refuses(b'{"0": "\xff\xfe"}', "not text; give a JSON file")
    refuses(gzip.compress(b"{}"), "is an archive; unpack it")
    refuses(b'{"0": [1], "1": [2], "0": [3]}', "has the key '0' more than once; write each query once")
    refuses(b"[" * 10**5, "is nested too deep for a prediction or annotation file")
    refuses(b'{"0": [' + b"1" * 5000 + b"]}", "cannot be read as JSON: .*5000 digits")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("predictions.json", "{}")
    refuses(path.read_bytes(), "is an archive; unpack it and give the JSON file inside")


def test_what_is_read(tmp_path):
    path = tmp_path / "predictions.json"
    path.write_bytes(b"\xef\xbb\xbf" + b'{"0": [1]}')
    assert read_predictions(path) == {"0": [1]}, "an editor's byte order mark does no harm"
    with pytest.raises(FileNotFoundError, match=r"nowhere\.json"):
        read_predictions(tmp_path / "nowhere.json")


def test_annotations_and_predictions_are_not_confused(tmp_path, write_json, cirr_queries, circo_queries, make_cirr):
    for benchmark, queries in (("cirr", cirr_queries), ("circo", circo_queries)):
        path = write_json(tmp_path / f"{benchmark}.json", queries)
        assert read_annotations(path, benchmark) == queries
        with pytest.raises(ValueError, match="holds annotations, not predictions"):
            read_predictions(path)
    with pytest.raises(ValueError, match="holds no annotations"):
        read_annotations(write_json(tmp_path / "predictions.json", make_cirr()), "cirr")
    with pytest.raises(ValueError, match="item 0 has no id, reference_img_id; are these the annotations of circo"):
        read_annotations(tmp_path / "cirr.json", "circo")
    with pytest.raises(ValueError, match="item 0 has no pairid, reference, img_set; are these the annotations of cirr"):
        read_annotations(tmp_path / "circo.json", "cirr")


def test_shortened_annotations_are_refused(tmp_path, write_json, cirr_queries, circo_queries):
    path = tmp_path / "annotations.json"
    with pytest.raises(ValueError, match="ids of its queries are not exactly 0 to n-1"):
        read_annotations(write_json(path, circo_queries[1:]), "circo")
    with pytest.raises(ValueError, match="ids of its queries are not all different"):
        read_annotations(write_json(path, cirr_queries + cirr_queries[:1]), "cirr")
    without = {key: value for key, value in circo_queries[3].items() if key != "gt_img_ids"}
    with pytest.raises(ValueError, match="item 3 has no gt_img_ids"):
        read_annotations(write_json(path, [*circo_queries[:3], without, *circo_queries[4:]]), "circo")


def test_a_test_split_has_no_targets(cirr_queries):
    assert has_targets(cirr_queries, "cirr")
    assert not has_targets([{"pairid": 1, "reference": "a", "img_set": {"members": []}}], "cirr")


@pytest.mark.parametrize("place", ["captions/split.rc2.val.json", "image_splits/split.rc2.val.json"])
def test_gallery_of_cirr_is_found(tmp_path, write_json, monkeypatch, place):
    write_json(tmp_path / place, {"dev-1": "./dev/dev-1.png"})
    annotations = write_json(tmp_path / "captions" / "cap.rc2.val.json", [])
    assert find_gallery(annotations, "cirr")[0] == {"dev-1"}
    monkeypatch.chdir(annotations.parent)
    assert find_gallery(annotations.relative_to(annotations.parent), "cirr")[0] == {"dev-1"}


@pytest.mark.parametrize("place", ["annotations", "COCO2017_unlabeled/annotations", "circo"])
def test_gallery_of_circo_is_found(tmp_path, write_json, place):
    content = {"images": [{"id": 3, "file_name": "3.jpg"}, {"id": 9, "file_name": "9.jpg"}]}
    path = write_json(tmp_path / place / "image_info_unlabeled2017.json", content)
    gallery, found, _ = find_gallery(write_json(tmp_path / "circo" / "val.json", []), "circo")
    assert gallery == {3, 9} and found.samefile(path)


def test_no_gallery_or_a_broken_one(tmp_path, write_json):
    assert find_gallery(tmp_path / "cap.rc2.val.json", "cirr") == (
        None,
        None,
        "split.rc2.val.json beside the annotations or in ../image_splits",
    )
    assert find_gallery(tmp_path / "mine.json", "cirr")[:2] == (None, None)
    (tmp_path / "split.rc2.val.json").write_text(json.dumps(["dev-1"]))
    with pytest.raises(ValueError, match=r"split\.rc2\.val\.json does not list the images of a gallery"):
        find_gallery(tmp_path / "cap.rc2.val.json", "cirr")
    (tmp_path / "image_info_unlabeled2017.json").write_text('{"images": [{"file_name": "3.jpg"}]}')
    with pytest.raises(ValueError, match="does not list the images of a gallery"):
        find_gallery(tmp_path / "val.json", "circo")
    for number in ("[3]", '"3"', "null"):
        (tmp_path / "image_info_unlabeled2017.json").write_text(f'{{"images": [{{"id": {number}}}]}}')
        with pytest.raises(ValueError, match="does not list the images of a gallery"):
            find_gallery(tmp_path / "val.json", "circo")


@pytest.mark.parametrize(
    "benchmark, field, value",
    [
        ("cirr", "pairid", [100]),
        ("cirr", "pairid", "100"),
        ("cirr", "reference", ["dev-1-1-img1"]),
        ("cirr", "target_hard", None),
        ("cirr", "img_set", ["dev-1-1-img1"]),
        ("circo", "id", {"a": 1}),
        ("circo", "id", True),
        ("circo", "reference_img_id", [1]),
        ("circo", "target_img_id", [1000]),
        ("circo", "gt_img_ids", 1000),
        ("circo", "gt_img_ids", []),
        ("circo", "gt_img_ids", ["1000"]),
        ("circo", "semantic_aspects", None),
    ],
)
def test_annotations_of_wrong_types_are_named(tmp_path, write_json, cirr_queries, circo_queries, benchmark, field, value):
    items = {"cirr": cirr_queries, "circo": circo_queries}[benchmark]
    path = write_json(tmp_path / "annotations.json", [items[0], {**items[1], field: value}, *items[2:]])
    with pytest.raises(ValueError, match=rf"{path}: item 1: '{field}' must be a"):
        read_annotations(path, benchmark)


@pytest.mark.parametrize(
    "img_set, reason", [({"id": 1}, " has no 'members'"), ({"members": "dev"}, ": 'members' must be a list")]
)
def test_an_img_set_without_members_is_named(tmp_path, write_json, cirr_queries, img_set, reason):
    path = write_json(tmp_path / "annotations.json", [{**cirr_queries[0], "img_set": img_set}])
    with pytest.raises(ValueError, match=f"{path}: 'img_set' of item 0{reason}"):
        read_annotations(path, "cirr")
