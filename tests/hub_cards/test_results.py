"""Figures come from records of `m2c evaluate` on this very model, and arrive on the Hub as they were measured."""

import json
import re

import pytest
import yaml
from huggingface_hub import ModelCard, parse_eval_result_entries

from hub_cards import read_evaluation, render_card, write_results
from hub_cards.results import write_entries


FASHIONIQ = {"recall": [10, 50], "subset_recall": [], "mean_average_precision": [], "gallery": "original"}
CIRCO = {"recall": [5], "mean_average_precision": [5, 10], "aspect_precision": 10, "excludes_reference": False, "gallery": None}
CIRR = {"recall": [1, 5], "subset_recall": [1], "excludes_reference": True, "gallery": None}
CATEGORIES = {
    "dress": {"R@10": 20.5, "R@50": 42.0},
    "shirt": {"R@10": 30.0, "R@50": 50.0},
    "toptee": {"R@10": 31.0, "R@50": 53.5},
}


def rows(text: str) -> dict[str, list[str]]:
    """Cells of the rows of all tables of results, by the first."""
    found = [line.strip("| \n").split(" | ") for line in text.split("## Results")[1].split("## Limits")[0].splitlines()]
    return {first.strip("`"): cells for first, *cells in found if cells}


def test_from_the_record_to_the_hub(evaluated, scenes_record, copy_of):
    """The real thing: a record of this model, written by the code of `m2c evaluate`, read back from everywhere."""
    folder = copy_of("full")
    assert read_evaluation(evaluated) == read_evaluation(evaluated / "record.json") == scenes_record
    (record,) = write_results(folder, [read_evaluation(evaluated)])
    assert record == folder / "evaluation" / "scenes-test.json" and json.loads(record.read_text()) == scenes_record
    (record,) = write_results(folder, [], {"scenes": "you/scenes"})
    assert json.loads(record.read_text()) == {**scenes_record, "dataset": "you/scenes"}
    (table,) = write_entries(folder, "you/model")
    assert table == folder / ".eval_results" / "scenes-test.yaml"

    figures = scenes_record["figures"]
    assert set(figures) == {"R@1", "R@5", "R@10", "subset R@1", "mAP@10"}
    entries = parse_eval_result_entries(yaml.safe_load(table.read_text()))
    assert {entry.task_id: entry.value for entry in entries} == {
        f"test-{name.replace(' ', '_')}": figures[name] for name in figures
    }
    for entry in entries:
        assert entry.dataset_id == "you/scenes" and entry.date == scenes_record["date"]
        assert entry.source_url == "https://huggingface.co/you/model/blob/main/evaluation/scenes-test.json"
        assert 'in percent; 5 queries, gallery of 30; reference left out of the ranking; prompt "a photo of' in entry.notes

    card = ModelCard(str(render_card(folder, "you/model")))
    assert card.data.model_name == "model"
    assert {result.metric_name: result.metric_value for result in card.data.eval_results} == figures
    assert {(result.dataset_type, result.dataset_split) for result in card.data.eval_results} == {("you/scenes", "test")}
    assert [result.metric_type for result in card.data.eval_results] == [
        *("recall_at_1", "recall_at_5", "recall_at_10", "subset_recall_at_1", "map_at_10"),
    ]
    assert rows(card.text)["scenes"][:2] == ["5", "30"]
    assert rows(card.text)["scenes"][2:] == [f"{value:.2f}" for value in figures.values()]
    assert "`a photo of * that {text}`" in card.text and "reference image is left out of the ranking" in card.text
    assert "](evaluation/scenes-test.json)" in card.text and "Missing" not in card.text.split("## Results")[1]


def test_several_categories_and_their_mean(make_record, copy_of):
    folder = copy_of("full")
    write_results(folder, [make_record("fashioniq", "val", CATEGORIES, FASHIONIQ)])
    card = render_card(folder)
    found = rows(card.text)
    assert found["dress"] == ["2,017", "3,817", "20.50", "42.00"] and found["mean"][-2:] == ["27.17", "48.50"]
    assert "### FashionIQ, split `val`" in card.text and "ranked too" in card.text
    results = {(result.dataset_config, result.metric_name): result.metric_value for result in card.data.eval_results}
    assert len(results) == 8 and results["toptee", "R@50"] == 53.5 and results["mean", "R@50"] == 48.5
    (table,) = write_entries(folder, "you/model")
    entries = parse_eval_result_entries(yaml.safe_load(table.read_text()))
    values = {entry.task_id: (entry.dataset_id, entry.value) for entry in entries}
    assert table.name == "fashioniq-val.yaml" and values["shirt-val-R@10"] == ("fashioniq", 30.0)
    assert values["mean-val-R@10"][1] == pytest.approx(27.1667, abs=1e-3)
    assert "mean of dress, shirt, toptee" in next(entry.notes for entry in entries if entry.task_id.startswith("mean"))


def test_a_missing_figure_is_called_missing(make_record, copy_of):
    folder, record = (
        copy_of("full"),
        make_record("cirr", "val", {"cirr": {"R@1": 24.2, "R@5": None, "subset R@1": float("nan")}}, CIRR),
    )
    del record["parts"]["cirr"]["queries"]
    write_results(folder, [record])
    card = render_card(folder)
    assert rows(card.text)["cirr"] == ["missing", "3,817", "24.20", "missing", "missing"]
    assert [result.metric_name for result in card.data.eval_results] == ["R@1"]


def test_a_test_split_has_no_figures(make_record, copy_of):
    folder = copy_of("full")
    (path,) = write_results(folder, [make_record("cirr", "test1", {"cirr": {}}, CIRR)])
    assert path.name == "cirr-test1.json" and not write_entries(folder, "you/model")
    card = render_card(folder)
    assert "Missing: figures. This split keeps its targets secret" in card.text and card.data.eval_results is None


def test_aspects_and_what_was_left_out(make_record, copy_of):
    figures = {"R@5": 1.0, "mAP@5": 2.0, "mAP@10": 3.0, "mAP@10 negation": 4.25}
    folder, record = copy_of("full"), make_record("circo", "val", {"circo": figures}, CIRCO)
    record["parts"]["circo"]["left_out"] = {"queries": 3, "gallery images": 1200}
    write_results(folder, [record])
    card = render_card(folder)
    assert "| `mAP@10 negation` | 4.25 |" in card.text and "mAP@10 negation" not in str(card.data)
    assert re.search(r"\*\*Left out of `circo`, .*: 3 `queries`, 1,200 `gallery images`\.\*\*", card.text)
    (table,) = write_entries(folder, "you/model")
    assert "3 queries left out" in table.read_text().replace("\n   ", "")


def test_results_of_several_benchmarks_come_together(make_record, scenes_record, copy_of):
    folder = copy_of("full")
    dress = {"dress": CATEGORIES["dress"]}
    records = [
        make_record("fashioniq", "val", CATEGORIES, FASHIONIQ),
        make_record("fashioniq", "val", CATEGORIES, {**FASHIONIQ, "gallery": "val"}),
        make_record("fashioniq", "val", dress, FASHIONIQ),
    ]
    write_results(folder, records)
    write_results(folder, [scenes_record])
    names = {path.name for path in (folder / "evaluation").iterdir()}
    assert names == {"fashioniq-val.json", "fashioniq-val-gallery-val.json", "fashioniq-dress-val.json", "scenes-test.json"}
    assert render_card(folder).text.count("\n### ") == 4 + 2, "and two stages"
    with pytest.raises(ValueError, match="there are two records of fashioniq-val;"):
        write_results(folder, [records[0], records[0]])
    write_results(folder, [{**records[0], "date": "2026-12-24"}])
    assert "`2026-12-24`" in render_card(folder).text and {path.name for path in (folder / "evaluation").iterdir()} == names


def test_only_of_this_model(scenes_record, copy_of):
    """An adapter alone is the same model as adapter and base together; a merged one is measured anew."""
    assert write_results(copy_of("adapter"), [scenes_record])
    for other in ("base", "merged", "converted"):
        folder = copy_of(other)
        with pytest.raises(
            ValueError, match=r"the record of scenes-test is of another model \(full\).*measure this one with m2c evaluate"
        ):
            write_results(folder, [scenes_record])
        assert not (folder / "evaluation").exists()


def test_records_that_lie_there_already_are_of_this_model_too(scenes_record, make_record, copy_of):
    folder = copy_of("full")
    write_results(folder, [scenes_record])
    (folder / "adapter_model.safetensors").unlink()
    (folder / "adapter_config.json").unlink()
    with pytest.raises(ValueError, match="the record of scenes-test is of another model"):
        write_results(folder, [])


def test_a_record_has_the_name_of_what_it_is_of(scenes_record, copy_of, write_json):
    """The card links it by this name."""
    folder = copy_of("full")
    path = write_json(folder / "evaluation" / "mine.json", scenes_record)
    with pytest.raises(ValueError, match=f"{re.escape(str(path))} holds the record of scenes-test; call it scenes-test.json"):
        render_card(folder)


@pytest.mark.parametrize(
    ("datasets", "message"),
    [
        ({"cirr": "you/cirr"}, "a data set is named for cirr, of which there is no record"),
        ({"scenes": "scenes"}, "is a repository of the Hub, user/name, and not 'scenes'"),
    ],
)
def test_data_sets_that_cannot_be(scenes_record, copy_of, datasets, message):
    with pytest.raises(ValueError, match=message):
        write_results(copy_of("full"), [scenes_record], datasets)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"query": {"kind": "text"}}, "is of plain CLIP"),
        ({"query": {"kind": "composed", "complementary": {"captioner": {}}}}, "is of complementary retrieval"),
        ({"parts": None}, "no record of m2c evaluate --output: it has no 'parts'"),
        ({"parts": {"scenes": {}}}, "its 'parts' have no 'figures'"),
        ({"model": {"dtype": "float8"}}, "has a dtype of 'float8'"),
        ({"model": {"dtype": "float32", "sha256": "0" * 64, "adapters": []}}, "of another model"),
    ],
)
def test_other_records_are_refused(scenes_record, copy_of, change, message):
    folder = copy_of("full")
    with pytest.raises(ValueError, match=message):
        write_results(folder, [{**scenes_record, **change}])
    assert not (folder / "evaluation").exists()


def test_what_is_no_record_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"there is no .*record.json; m2c evaluate --output writes it"):
        read_evaluation(tmp_path)
    (tmp_path / "record.json").write_text('{"benchmark": "cirr", "problems": []}')
    with pytest.raises(ValueError, match=r"record.json is no record of m2c evaluate --output: it has no 'split'"):
        read_evaluation(tmp_path)


def test_hostile_names(make_record, copy_of, hostile):
    """Of an own benchmark, its parts and its prompt; no file is written outside."""
    folder = copy_of("full")
    query = {"kind": "composed", "prompt": hostile, "first_query": [hostile]}
    name = f"../../{hostile}"
    record = make_record(name, "val", {hostile: {"R@1": 24.25, "R@5": 2.0, "subset R@1": 3.0}}, CIRR, query=query)
    paths = [*write_results(folder, [record]), *write_entries(folder, "you/model")]
    assert {path.parent.parent for path in paths} == {folder}
    card = ModelCard(str(render_card(folder, "you/model")))
    assert card.text.count("\n## ") == 6 and card.text.count("\n### ") == 3 and "24.25" in card.text
    known = [result for result in card.data.eval_results if result.metric_value == 24.25]
    assert [result.dataset_name for result in known] == [name.encode("utf-8", "replace").decode("utf-8")]
    (entry, *_) = parse_eval_result_entries(yaml.safe_load(paths[1].read_text(encoding="utf-8")))
    assert entry.value == 24.25 and entry.dataset_id == known[0].dataset_type
    assert re.fullmatch(r"https://huggingface.co/you/model/blob/main/evaluation/[\w.%-]+\.json", entry.source_url)
