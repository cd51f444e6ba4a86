"""`m2c score`: what the servers would say, without a model."""

import json
from pathlib import Path

import pytest


@pytest.fixture
def score(command, make_cirr, tmp_path):
    """Scores predictions of CIRR against annotations of val, or of test1."""
    roots = {}

    def run(predictions, *more, split: str = "val"):
        if split not in roots:
            roots[split] = make_cirr(tmp_path / split, split)
        if predictions is not None:
            content = predictions if isinstance(predictions, str) else json.dumps(predictions)
            Path("predictions.json").write_text(content, encoding="utf-8")
        annotations = roots[split] / "captions" / f"cap.rc2.{split}.json"
        paths = ["--annotations", annotations, "--predictions", "predictions.json"]
        return command("score", "--benchmark", "cirr", *paths, *more)

    return run


@pytest.fixture
def subsets(cirr_queries) -> dict:
    """Of five queries, the target is first, second, third, and not there, twice."""
    predictions = {"version": "rc2", "metric": "recall_subset"}
    for query, place in zip(cirr_queries, (0, 1, 2, 3, 3)):
        others = [name for name in query["img_set"]["members"] if name not in (query["reference"], query["target_hard"])]
        predictions[str(query["pairid"])] = [*others[:place], query["target_hard"], *others[place:]][:3]
    return predictions


def test_figures_by_hand(score, subsets):
    done = score(subsets)
    assert done.exit_code == 0, done.output
    for row in ("| subset R@1 | 20.0000 | 5 |", "| subset R@2 | 40.0000 | 5 |", "| subset R@3 | 60.0000 | 5 |"):
        assert row in done.output


def test_the_record_is_written_where_it_is_asked_for(score, subsets):
    assert score(subsets, "--output", "score.json").exit_code == 0
    record = json.loads(Path("score.json").read_text(encoding="utf-8"))
    assert record["figures"]["subset R@2"] == {"percent": 40.0, "queries": 5}
    assert record["problems"] == [] and record["queries"] == 5


def test_a_test_split_is_validated_and_not_scored(score, subsets):
    done = score(subsets, split="test1")
    assert done.exit_code == 0 and "valid" in done.output and "not scored" in done.output and "percent" not in done.output


def change(how: str, predictions: dict, query: dict) -> None:
    names = predictions["100"]
    if how == "missing":
        del predictions["100"]
    elif how == "short":
        names.pop()
    elif how == "twice":
        names[1] = names[0]
    elif how == "unknown":
        names[2] = "dev-999-0-img0"
    else:
        names[2] = query["reference"]


@pytest.mark.parametrize(
    "how, said",
    [
        ("missing", "query 100: is missing"),
        ("short", "query 100: lists 2 names instead of exactly 3"),
        ("twice", "more than once"),
        ("unknown", "'dev-999-0-img0', not in the gallery"),
        ("reference", "query 100: lists its own reference"),
    ],
)
@pytest.mark.parametrize("split", ["val", "test1"])
def test_what_a_server_would_reject_is_an_exit_of_1_that_names_the_query(score, subsets, cirr_queries, how, said, split):
    change(how, subsets, cirr_queries[0])
    done = score(subsets, "--output", "score.json", split=split)
    assert done.exit_code == 1 and "query 100" in done.output and said in done.output
    assert "percent" not in done.output
    record = json.loads(Path("score.json").read_text(encoding="utf-8"))
    assert record["figures"] == {} and any(said in problem for problem in record["problems"])


@pytest.mark.parametrize("content, said", [('{"version": "rc2", ', "cut off"), ("<html>", "not JSON"), ("", "is empty")])
def test_half_written_files_are_named(score, content, said):
    done = score(content)
    assert done.exit_code == 1 and "error: predictions.json" in done.output and said in done.output


def test_a_file_that_is_not_there_is_named(score):
    done = score(None)
    assert done.exit_code == 1 and "predictions.json" in done.output and "error: " in done.output


def test_another_benchmark_than_cirr_and_circo_is_refused(command):
    done = command("score", "--benchmark", "fashioniq", "--annotations", "a", "--predictions", "b")
    assert done.exit_code == 2
