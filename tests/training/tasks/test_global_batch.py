"""Layers over the global batch: spread over processes or not, they do the same."""

import os
import subprocess
import sys

import pytest
import torch
import torch.distributed as dist
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from m2c.training.tasks.global_batch import BatchPlace, GlobalBatchNorm2d, GlobalDropout, see_global_batch


@given(st.lists(st.integers(1, 70), min_size=1, max_size=4), st.integers(0, 3))
def test_dropout_does_not_depend_on_how_rows_are_spread(sizes, step):
    place = BatchPlace(seed=7)
    layer, rows = GlobalDropout(0.4, place).train(), torch.ones(sum(sizes), 3, 2)
    place.begin(step, 0)
    whole = [layer(rows), layer(rows[:, :1])]
    parts, first = ([], []), 0
    for size in sizes:
        place.begin(step, first)
        parts[0].append(layer(rows[:size]))
        parts[1].append(layer(rows[:size, :1]))
        first += size
    assert torch.equal(torch.cat(parts[0]), whole[0]) and torch.equal(torch.cat(parts[1]), whole[1])


def test_dropout_drops_its_share_anew_each_time():
    place, rows = BatchPlace(seed=1), torch.ones(1000, 50)
    layer = GlobalDropout(0.3, place).train()
    first, second = layer(rows), layer(rows)
    assert (first == 0).float().mean().item() == pytest.approx(0.3, abs=0.01)
    assert first.mean().item() == pytest.approx(1.0, abs=0.01)
    place.begin(1, 0)
    other_step = layer(rows)
    assert not torch.equal(first, second) and not torch.equal(first, other_step)
    assert not torch.equal(first[:32], first[32:64]), "groups differ"
    assert torch.equal(layer.eval()(rows), rows)


def test_names_in_the_state_dict_stay():
    module = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Sequential(nn.Dropout(0.1), nn.Linear(2, 2)))
    before = module.state_dict()
    see_global_batch(module, BatchPlace(seed=0))
    assert list(module.state_dict()) == list(before)
    assert isinstance(module[1], GlobalBatchNorm2d) and isinstance(module[2][0], GlobalDropout)


def pictures() -> torch.Tensor:
    return torch.randn(8, 5, 3, 2, generator=torch.Generator().manual_seed(0)) * 3 + 1


def run(layer: nn.BatchNorm2d, rows: torch.Tensor) -> dict[str, torch.Tensor]:
    """Output, gradients and statistics after one step; the loss is no plain sum, whose gradient would vanish."""
    rows = rows.clone().requires_grad_()
    output = layer(rows)
    (output**3).mean().backward()
    return {"output": output.detach(), "rows": rows.grad, "weight": layer.weight.grad, "bias": layer.bias.grad}


def worker(rank: int, path: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{path}/store", rank=rank, world_size=2)
    layer = GlobalBatchNorm2d(5).train()
    found = run(layer, pictures()[rank * 4 : rank * 4 + 4])
    torch.save({**found, "mean": layer.running_mean, "var": layer.running_var}, os.path.join(path, f"{rank}.pt"))
    dist.destroy_process_group()


def test_batch_norm_over_two_processes_is_that_over_one(tmp_path):
    processes = [subprocess.Popen([sys.executable, __file__, str(rank), str(tmp_path)]) for rank in (0, 1)]
    assert [process.wait(timeout=120) for process in processes] == [0, 0]
    parts = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1)]
    layer = nn.BatchNorm2d(5).train()
    expected = run(layer, pictures())

    def close(found, wanted):
        torch.testing.assert_close(found, wanted, atol=1e-6, rtol=1e-5)

    close(torch.cat([part["output"] for part in parts]), expected["output"])
    # Each process has the mean over its own rows as loss; DDP halves the sum of gradients.
    close(torch.cat([part["rows"] for part in parts]) / 2, expected["rows"])
    for name in ("weight", "bias"):
        close(sum(part[name] for part in parts) / 2, expected[name])
    for part in parts:
        close(part["mean"], layer.running_mean)
        close(part["var"], layer.running_var)


if __name__ == "__main__":
    worker(int(sys.argv[1]), sys.argv[2])
