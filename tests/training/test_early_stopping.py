"""A run ends when it has stopped improving, and a resumed one at the same step."""

import math

import pytest
from accelerate import Accelerator

from m2c.training.early_stopping import EarlyStopping


VALUES = [0.2, 0.5, 0.4, 0.5, 0.6, 0.1, math.nan, 0.6, 0.7]


def stops_after(early_stopping: EarlyStopping, values: list[float], first: int = 0) -> int | None:
    """The position of the measurement after which the run ends."""
    for position, value in enumerate(values[first:], first):
        early_stopping.update(10 * (position + 1), {"recall": value, "other": 1 - value})
        if early_stopping.should_stop:
            return position
    return None


@pytest.mark.parametrize(("patience", "stop"), [(0, None), (1, 2), (2, 3), (3, 7), (4, None)])
def test_ends_after_so_many_measurements_without_a_better_one(patience, stop):
    """Equal is not better, nor is what is not a number."""
    assert stops_after(EarlyStopping(patience, "recall"), VALUES) == stop


def test_remembers_the_best_and_when_it_was():
    early_stopping = EarlyStopping(3, "recall")
    assert [early_stopping.update(step, {"recall": value}) for step, value in enumerate(VALUES[:6], 1)] == [
        True, True, False, False, True, False,
    ]  # fmt: skip
    assert (early_stopping.best, early_stopping.best_step, early_stopping.waited) == (0.6, 5, 1)


def test_a_first_measurement_that_is_not_a_number_is_beaten():
    early_stopping = EarlyStopping(2, "recall")
    assert not early_stopping.update(1, {"recall": math.nan})
    assert early_stopping.update(2, {"recall": 0.0})


@pytest.mark.parametrize("kill", range(8))
def test_resumed_from_a_checkpoint_it_ends_at_the_same_step(tmp_path, kill):
    before, after = EarlyStopping(3, "recall"), EarlyStopping(3, "recall")
    stops_after(before, VALUES[:kill])
    for early_stopping, move in ((before, "save_state"), (after, "load_state")):
        accelerator = Accelerator(cpu=True)
        accelerator.register_for_checkpointing(early_stopping)
        getattr(accelerator, move)(str(tmp_path / "checkpoint"))
    assert stops_after(after, VALUES, kill) == 7


def test_a_run_that_has_ended_goes_on_with_more_patience():
    ended, patient = EarlyStopping(3, "recall"), EarlyStopping(5, "recall")
    stops_after(ended, VALUES)
    patient.load_state_dict(ended.state_dict())
    assert ended.should_stop and not patient.should_stop
    assert patient.update(90, {"recall": 0.7})
