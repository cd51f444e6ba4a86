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
