import json

import pytest

from m2c.evaluation.submissions import record as module
from m2c.evaluation.submissions import score, table


@pytest.fixture
def cirr_folder(tmp_path, write_json, cirr_queries, cirr_names, make_cirr):
    """As the owners lay it out, with a valid prediction file beside."""
    write_json(tmp_path / "captions" / "cap.rc2.val.json", cirr_queries)
    hidden = [{key: query[key] for key in ("pairid", "reference", "caption", "img_set")} for query in cirr_queries]
    write_json(tmp_path / "captions" / "cap.rc2.test1.json", hidden)
    for split in ("val", "test1"):
        files = {name: f"./dev/{name}.png" for name in cirr_names}
        write_json(tmp_path / "image_splits" / f"split.rc2.{split}.json", files)
    write_json(tmp_path / "predictions.json", make_cirr())
    return tmp_path


def test_record_and_table_of_a_valid_file(cirr_folder):
    record = score("cirr", cirr_folder / "captions" / "cap.rc2.val.json", str(cirr_folder / "predictions.json"))
    assert json.loads(json.dumps(record)) == record
    assert (record["benchmark"], record["queries"], record["problems"], record["notes"]) == ("cirr", 5, [], [])
    files = [record[key] for key in ("annotations", "predictions", "gallery")]
    assert files == ["cap.rc2.val.json", "predictions.json", "split.rc2.val.json"]
    assert str(cirr_folder) not in json.dumps(record), "where files lie is nobody's business"
    assert list(record["figures"]) == ["R@1", "R@5", "R@10", "R@50"]
    text = table(record)
    assert text.startswith("cirr, 5 queries: ") and "predictions.json: valid\n" in text
    assert f"| R@50 | {record['figures']['R@50']['percent']:.4f} | 5 |" in text


def test_an_invalid_file_has_problems_and_no_figures(cirr_folder, write_json, make_cirr):
    predictions = make_cirr()
    predictions["103"][0] = "dev-999-0-img0"
    write_json(cirr_folder / "predictions.json", predictions)
    record = score("cirr", cirr_folder / "captions" / "cap.rc2.val.json", cirr_folder / "predictions.json")
    assert record["figures"] == {} and record["problems"] == ["query 103: lists 'dev-999-0-img0', not in the gallery"]
    assert table(record).splitlines()[0].endswith(": 1 problem") and record["problems"][0] in table(record)


def test_a_test_split_is_validated_only(cirr_folder, monkeypatch):
    arguments = ("cirr", cirr_folder / "captions" / "cap.rc2.test1.json", cirr_folder / "predictions.json")
    record = score(*arguments)
    assert record["figures"] == {} and record["problems"] == []
    assert "validated, not scored" in record["notes"][0] and record["notes"][0] in table(record)
    monkeypatch.setattr(module, "CIRR_SERVER_BYTES", 1000)
    assert score(*arguments)["problems"][0].endswith("the server takes 5; write it without indentation")


def test_without_a_gallery_the_record_says_so(tmp_path, write_json, circo_queries, circo_ids, make_circo):
    annotations = write_json(tmp_path / "val.json", circo_queries)
    predictions = write_json(tmp_path / "predictions.json", {**make_circo(), "3": [*range(50)]})
    record = score("circo", annotations, predictions)
    assert record["gallery"] is None and record["problems"] == []
    assert record["notes"] == [
        "images unknown to the gallery were not looked for, for want of image_info_unlabeled2017.json beside the annotations "
        "or in ../COCO2017_unlabeled/annotations or in ../annotations"
    ]
    assert record["notes"][0] in table(record)
    write_json(tmp_path / "image_info_unlabeled2017.json", {"images": [{"id": image} for image in circo_ids]})
    record = score("circo", annotations, predictions)
    assert record["problems"] == ["query 3: lists 0, 1, 2 and 47 more, not in the gallery"] and record["notes"] == []
