"""The metric folder, loaded as `evaluate` loads it."""

from pathlib import Path

import evaluate
import pytest

import m2c.evaluation


@pytest.fixture(scope="module")
def metric():
    return evaluate.load(str(Path(m2c.evaluation.__file__).parent / "composed_retrieval"))


def test_figures_by_hand(metric):
    predictions = [["a", "b", "c"], ["c", "a", "b"]]
    figures = metric.compute(predictions=predictions, references=[["b"], ["c", "b", "z"]], recall=[1, 2], precision=[2, 3])
    precision = {"mAP@2": (1 / 2 + 1 / 2) / 2, "mAP@3": (1 / 2 + (1 + 2 / 3) / 3) / 2}
    expected = {"R@1": 50.0, "R@2": 100.0, "queries": 2, **{name: 100 * value for name, value in precision.items()}}
    assert figures == pytest.approx(expected)


def test_only_what_the_predictions_reach(metric):
    assert set(metric.compute(predictions=[["a", "b"]], references=[["a"]])) == {"R@1", "queries"}


@pytest.mark.parametrize("second", [["a"], ["a", "a"], ["a", "b", "c"]])
def test_rankings_that_cannot_be_are_named(metric, second):
    with pytest.raises(ValueError, match="query 1 should list 2 different images"):
        metric.compute(predictions=[["a", "b"], second], references=[["a"], ["a"]])
    with pytest.raises(ValueError, match="has 0 answers"):
        metric.compute(predictions=[["a", "b"]], references=[[]])


def test_subsets_aspects_and_categories(metric):
    predictions, references = [["a", "b", "c"], ["c", "a", "b"], ["b", "c", "a"]], [["b"], ["b", "c"], ["b"]]
    figures = metric.compute(
        predictions=predictions,
        references=references,
        recall=[1],
        precision=[3],
        subsets=[["b", "c"], ["a", "b"], ["b", "a"]],
        subset_recall=[1],
        aspects=[["negation"], ["negation", "addition"], []],
        categories=["shirt", "dress", "shirt"],
    )
    expected = {"shirt R@1": 50.0, "dress R@1": 0.0, "R@1": 25.0, "shirt subset R@1": 100.0, "dress subset R@1": 0.0}
    expected |= {"subset R@1": 50.0, "shirt mAP@3": 75.0, "dress mAP@3": 100 * (1 + 2 / 3) / 2}
    expected |= {"mAP@3": (75 + 100 * (1 + 2 / 3) / 2) / 2, "shirt mAP@10 negation": 50.0}
    expected |= {"dress mAP@10 negation": 100 * (1 + 2 / 3) / 2, "dress mAP@10 addition": 100 * (1 + 2 / 3) / 2, "queries": 3}
    expected["mAP@10 negation"] = (50 + 100 * (1 + 2 / 3) / 2) / 2
    assert figures == pytest.approx(expected)


def test_no_predictions(metric):
    with pytest.raises(ValueError, match="no predictions"):
        metric.compute(predictions=[], references=[])
