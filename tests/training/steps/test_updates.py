"""Steps whose gradient is not finite: they change nothing, and are counted."""

import copy
import math

import pytest
import torch
from accelerate import Accelerator
from accelerate.optimizer import AcceleratedOptimizer
from torch import nn
from transformers import get_cosine_schedule_with_warmup

from m2c.training.steps.updates import Updates


class Run:
    def __init__(self, scaler: torch.amp.GradScaler | None = None, max_norm: float = 1.0):
        self.accelerator = Accelerator(cpu=True)
        torch.manual_seed(0)
        self.task = nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4))
        optimizer = torch.optim.AdamW(self.task.parameters(), lr=0.1)
        self.schedule = get_cosine_schedule_with_warmup(optimizer, 2, 50)
        self.optimizer = AcceleratedOptimizer(optimizer, scaler=scaler)
        self.accelerator.scaler = scaler
        self.updates = Updates(self.accelerator, self.task, self.optimizer, self.schedule, max_norm)

    def step(self, factor: float = 1.0) -> bool:
        rows = torch.randn(8, 5)
        self.updates.begin()
        self.accelerator.backward(self.task(rows * factor).square().sum())
        if self.accelerator.scaler is not None:
            # Which Accelerate does by itself, but for a GPU only.
            self.accelerator.scaler.unscale_(self.optimizer.optimizer)
        return self.updates.finish()

    def state(self) -> dict:
        return copy.deepcopy({"task": self.task.state_dict(), "optimizer": self.optimizer.state_dict()["state"]})


@pytest.mark.parametrize(("max_norm", "is_clipped"), [(0.5, True), (0, False)])
def test_gradients_are_clipped_if_that_is_asked_for(max_norm, is_clipped):
    run = Run(max_norm=max_norm)
    run.step(factor=9)
    norm = nn.utils.get_total_norm([parameter.grad for parameter in run.task.parameters()])
    assert (norm == pytest.approx(0.5, rel=1e-4)) == is_clipped and (is_clipped or norm > 1)


def flat(state: dict) -> dict[str, torch.Tensor]:
    moments = {f"{index} {name}": tensor for index, of in state["optimizer"].items() for name, tensor in of.items()}
    return {**state["task"], **moments}


def assert_equal(one: dict, other: dict) -> None:
    first, second = flat(one), flat(other)
    assert first.keys() == second.keys()
    for name, tensor in first.items():
        assert torch.equal(tensor, second[name]), name


@pytest.mark.parametrize("factor", [math.inf, math.nan])
def test_a_skipped_step_changes_nothing_but_the_learning_rate(factor):
    run = Run()
    assert all(run.step() for _ in range(3))
    before, rate = run.state(), run.schedule.get_last_lr()
    assert not run.step(factor)
    assert_equal(run.state(), before)
    assert all(torch.isfinite(tensor).all() for tensor in flat(run.state()).values())
    assert run.schedule.get_last_lr() < rate and run.schedule.last_epoch == 4
    assert run.step()
    with pytest.raises(AssertionError):
        assert_equal(run.state(), before)


def test_skipped_steps_are_counted_in_a_row():
    run = Run()
    counts = []
    for factor in (1, math.nan, math.nan, 1, math.nan):
        run.step(factor)
        counts.append(run.updates.skipped)
    assert counts == [0, 1, 2, 0, 1]


def test_the_gradient_is_clipped():
    run = Run()
    run.step(1000)
    norm = torch.nn.utils.get_total_norm([parameter.grad for parameter in run.task.parameters()])
    assert norm.item() == pytest.approx(1.0, rel=1e-4)


def test_fp16_may_look_for_its_scale_for_longer_than_a_run_may_fail():
    """The scale halves with each overflow; only when it is below one, an overflow is no longer the scale's fault."""
    run = Run(torch.amp.GradScaler("cpu", init_scale=2.0**10, growth_interval=1000))
    before = run.state()
    counts = []
    for _ in range(14):
        assert not run.step(math.inf)
        counts.append(run.updates.skipped)
    assert counts == [0] * 10 + [1, 2, 3, 4]
    assert_equal(run.state(), before)
    assert run.step() and run.updates.skipped == 0
    with pytest.raises(AssertionError):
        assert_equal(run.state(), before)
