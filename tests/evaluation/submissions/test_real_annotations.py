"""On the benchmarks' own files, where `M2C_ANNOTATIONS` names a folder that has them."""

import json
import random

import pytest

from m2c.evaluation.submissions import score, write_cirr_submission


# Percent, as CIRCO's evaluator gives them for the example of its repository.
GOLDEN = {
    "mAP@5": "0.4861",
    "mAP@10": "0.5178",
    "mAP@25": "0.5400",
    "mAP@50": "0.6020",
    "R@5": "0.9091",
    "R@10": "0.9091",
    "R@25": "1.3636",
    "R@50": "3.6364",
    "mAP@10 direct_addressing": "0.9197",
    "mAP@10 statement_with_conjunction": "0.6183",
    "mAP@10 viewpoint": "0.6173",
    "mAP@10 comparative_statement": "1.0500",
    "mAP@10 spatial_relations_background": "0.1808",
    "mAP@10 addition": "0.0871",
    "mAP@10 compare_change": "0.0242",
    "mAP@10 cardinality": "0.0000",
    "mAP@10 negation": "0.0000",
}


def test_circo_example(real_annotations):
    folder = real_annotations / "circo"
    record = score("circo", folder / "val.json", folder / "submission_val.json")
    assert record["queries"] == 220 and record["problems"] == []
    assert {name: f"{figure['percent']:.4f}" for name, figure in record["figures"].items()} == GOLDEN


@pytest.fixture(scope="module")
def cirr(real_annotations):
    """Annotations, names of the gallery, and a random ranking for each query."""
    path = real_annotations / "cirr" / "cap.rc2.val.json"
    queries = json.loads(path.read_text())
    names = list(json.loads(path.with_name("split.rc2.val.json").read_text()))
    draw = random.Random(0)
    rankings = {}
    for query in queries:
        rankings[str(query["pairid"])] = [name for name in draw.sample(names, 51) if name != query["reference"]][:50]
    return path, queries, names, rankings


def test_cirr_files_are_written_and_scored(cirr, tmp_path):
    path, queries, names, rankings = cirr
    write_cirr_submission(tmp_path / "recall.json", "recall", rankings, queries, names)
    record = score("cirr", path, tmp_path / "recall.json")
    assert record["queries"] == 4181 and record["problems"] == [] and record["notes"] == []
    assert record["figures"]["R@50"]["percent"] == pytest.approx(100 * 50 / 2296, abs=0.8), "chance"
    subsets = {}
    for query in queries:
        members = [name for name in query["img_set"]["members"] if name != query["reference"]]
        subsets[str(query["pairid"])] = sorted(members, key=lambda name: name != query["target_hard"])[:3]
    write_cirr_submission(tmp_path / "subset.json", "recall_subset", subsets, queries, names)
    figures = score("cirr", path, tmp_path / "subset.json")["figures"]
    assert [figures[f"subset R@{k}"]["percent"] for k in (1, 2, 3)] == [100, 100, 100]


def test_faults_in_a_cirr_file_are_named(cirr, tmp_path, write_json):
    path, queries, _, rankings = cirr
    query, reference = str(queries[7]["pairid"]), queries[7]["reference"]
    names = rankings[query]
    faults = {
        "more than once": [names[1], *names[1:]],
        "not in the gallery": ["dev-0-0-img9", *names[1:]],
        "lists 49 names": names[:49],
        "own reference": [reference, *names[1:]],
        "is missing": None,
    }
    for reason, ranking in faults.items():
        predictions = {"version": "rc2", "metric": "recall", **rankings, query: ranking}
        if ranking is None:
            del predictions[query]
        problems = score("cirr", path, write_json(tmp_path / "faulty.json", predictions))["problems"]
        assert len(problems) == 1 and problems[0].startswith(f"query {query}: ") and reason in problems[0]
