"""Runs the training script, and writes to the folder of its first argument what this process held of each trained weight after
the last step: how many numbers of weight, gradient and both moments of the optimiser, and how many the whole weight has."""

import json
import os
import sys
from pathlib import Path

import torch
from torch.distributed.tensor import DTensor

import train_accelerate
from m2c.training.steps.updates import Updates


def held(tensor: torch.Tensor) -> int:
    return tensor.to_local().numel() if isinstance(tensor, DTensor) else tensor.numel()


def finish(updates: Updates) -> bool:
    has_moved = take_step(updates)
    found = []
    for weight in updates.trained:
        moments = updates.optimizer.state[weight]
        found.append([held(weight), held(weight.grad), held(moments["exp_avg"]), held(moments["exp_avg_sq"]), weight.numel()])
    Path(sys.argv[1], f"held_{os.environ['RANK']}.json").write_text(json.dumps(found))
    return has_moved


take_step, Updates.finish = Updates.finish, finish


if __name__ == "__main__":
    sys.exit(train_accelerate.main(sys.argv[2:]))
