"""The processes that measure together, if a launcher started several."""

import torch
from accelerate import PartialState
from accelerate.utils import parse_flag_from_env


def processes() -> PartialState:
    """This process among all, as `accelerate launch` or `torchrun` started them: with a GPU each, or on the CPU."""
    # By itself `PartialState` takes several processes on the CPU for as many lonely ones.
    return PartialState(cpu=parse_flag_from_env("ACCELERATE_USE_CPU") or not torch.cuda.is_available())
