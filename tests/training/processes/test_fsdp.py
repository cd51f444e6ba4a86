"""What two processes share, each can have whole, change, and share again."""

import math
import os
import subprocess
import sys

import torch
import torch.distributed as dist
from torch import nn

from m2c.training.processes.fsdp import make_whole, shard_trained, whole_state, whole_weights


class Accelerator:
    device, num_processes = torch.device("cpu"), 2


def model() -> nn.Sequential:
    """Sizes that two processes cannot share evenly, and a frozen bias."""
    torch.manual_seed(0)
    layers = nn.Sequential(nn.Linear(3, 5), nn.Linear(5, 1))
    layers[0].bias.requires_grad_(False)
    return layers


def optimizer_of(layers: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.AdamW([parameter for parameter in layers.parameters() if parameter.requires_grad], lr=0.1)


def step(layers: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    optimizer.zero_grad()
    layers(torch.arange(6.0).view(2, 3)).sum().backward()
    optimizer.step()


def worker(rank: int, path: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{path}/store", rank=rank, world_size=2)
    layers = model()
    shard_trained(layers, Accelerator)
    optimizer = optimizer_of(layers)
    shared = dict(layers.named_parameters())
    assert shared["0.weight"].to_local().shape == ((3, 3), (2, 3))[rank] and type(shared["0.bias"]) is nn.Parameter
    step(layers, optimizer)
    with whole_weights(layers), whole_state(optimizer):
        torch.save([layers.state_dict(), optimizer.state_dict()], os.path.join(path, f"whole_{rank}.pt"))
        with torch.no_grad():
            layers[0].weight.mul_(2)
        layers[1].weight.grad = torch.arange(5.0)[None]
        state = optimizer.state_dict()
        state["state"] = {index: {**moments, "exp_avg": moments["exp_avg"] + 1} for index, moments in state["state"].items()}
        optimizer.load_state_dict(state)
    assert all(parameter is shared[name] for name, parameter in layers.named_parameters())
    gradient, moment = shared["1.weight"].grad, optimizer.state[shared["0.weight"]]["exp_avg"]
    assert gradient.to_local().shape == ((1, 5), (0, 5))[rank] and moment.to_local().shape == ((3, 3), (2, 3))[rank]
    norm = nn.utils.clip_grad_norm_(layers.parameters(), 1e9)
    changed = [norm.full_tensor(), shared["0.weight"].full_tensor(), moment.full_tensor(), gradient.full_tensor()]
    if rank == 0:
        shared["0.weight"].grad.to_local()[0, 0] = torch.inf
    assert math.isfinite(norm) and not math.isfinite(nn.utils.clip_grad_norm_(layers.parameters(), 1e9)), "as both must see"
    step(layers, optimizer)
    make_whole(layers)
    torch.save([*changed, layers.state_dict()], os.path.join(path, f"changed_{rank}.pt"))
    dist.destroy_process_group()


def test_shared_weights_are_whole_where_that_is_asked_for(tmp_path):
    processes = [subprocess.Popen([sys.executable, __file__, str(rank), str(tmp_path)]) for rank in (0, 1)]
    assert [process.wait(timeout=240) for process in processes] == [0, 0]
    layers = model()
    optimizer = optimizer_of(layers)
    step(layers, optimizer)
    gradients = [layers[0].weight.grad, layers[1].bias.grad, torch.arange(5.0)[None]]
    changed = [nn.utils.get_total_norm(gradients)]
    before, after = ([torch.load(tmp_path / f"{name}_{rank}.pt") for rank in (0, 1)] for name in ("whole", "changed"))
    for weights, state in before:
        torch.testing.assert_close(weights, layers.state_dict())
        torch.testing.assert_close(state, optimizer.state_dict())
    with torch.no_grad():
        layers[0].weight.mul_(2)
    for moments in optimizer.state.values():
        moments["exp_avg"] += 1
    changed += [layers[0].weight.detach().clone(), optimizer.state[layers[0].weight]["exp_avg"].clone(), gradients[-1]]
    step(layers, optimizer)
    for *found, weights in after:
        torch.testing.assert_close(found, changed)
        torch.testing.assert_close(weights, layers.state_dict())


if __name__ == "__main__":
    worker(int(sys.argv[1]), sys.argv[2])
