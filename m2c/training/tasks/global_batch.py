"""Layers that see the global batch: how it is spread over processes changes neither what is dropped nor what is normalised."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass

import torch
from torch import nn

from m2c.training.processes.distributed import gather, world_size


# Rows that share a random state. A process may begin in the middle of a group; it draws the whole group and uses its rows.
GROUP = 32


@dataclass
class BatchPlace:
    """Where a process stands in the run: what random numbers may depend on.

    Args:
        seed: of the run.
        step: of the run.
        first_row: of this process in the global batch.
        draws: how often was drawn in this step; the order of calls is that of the forward pass.
    """

    seed: int
    step: int = 0
    first_row: int = 0
    draws: int = 0

    def begin(self, step: int, first_row: int) -> None:
        """To be called before every forward pass."""
        self.step, self.first_row, self.draws = step, first_row, 0

    def recomputation(self) -> tuple[AbstractContextManager, AbstractContextManager]:
        """For activation checkpointing: contexts of the forward pass and of its repetition, which is to draw the same."""
        return nullcontext(), self._drawing_from(self.draws)

    @contextmanager
    def _drawing_from(self, draws: int) -> Iterator[None]:
        now, self.draws = self.draws, draws
        yield
        self.draws = now

    def mask(self, rows: torch.Tensor, p: float) -> torch.Tensor:
        """Of the shape of `rows`, true with probability `1 - p`."""
        return self.draw(torch.rand, rows) >= p

    def draw(self, distribution: Callable[..., torch.Tensor], rows: torch.Tensor) -> torch.Tensor:
        """Of the shape of `rows`, from `torch.rand` or `torch.randn`."""
        start, stop = self.first_row // GROUP, -(-(self.first_row + len(rows)) // GROUP)
        generator, groups = torch.Generator(device=rows.device), []
        for group in range(start, stop):
            generator.manual_seed(hash((self.seed, self.step, self.draws, group)) & 0x7FFF_FFFF_FFFF_FFFF)
            groups.append(distribution(GROUP, *rows.shape[1:], generator=generator, device=rows.device))
        self.draws += 1
        offset = self.first_row - start * GROUP
        return torch.cat(groups)[offset : offset + len(rows)]


class GlobalDropout(nn.Module):
    """Dropout whose mask depends on seed, step and row of the global batch. The first dimension of its input is the batch."""

    def __init__(self, p: float, place: BatchPlace):
        super().__init__()
        self.p = p
        self.place = place

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        if not self.training or self.p == 0:
            return hidden_states
        return hidden_states * self.place.mask(hidden_states, self.p) / (1 - self.p)


class GlobalBatchNorm2d(nn.BatchNorm2d):
    """Batch norm over the batches of all processes, on any device; torch's own does it on GPUs only.

    Every process must hold equally many rows.

    Attributes:
        moments: mean and variance, shape `(num_features,)`, to normalise with while training, for a batch that is seen in
            parts; see [`m2c.training.steps.grad_cache`]. `None` takes those of what `forward` gets.
    """

    moments: tuple[torch.Tensor, torch.Tensor] | None = None

    def forward(self, picture: torch.Tensor) -> torch.Tensor:
        if not self.training or (self.moments is None and world_size() == 1):
            return super().forward(picture)
        values = picture.float()
        if self.moments is None:
            mean = gather(values.mean(dim=(0, 2, 3))[None]).mean(dim=0)
            centred = values - mean[:, None, None]
            variance = gather(centred.square().mean(dim=(0, 2, 3))[None]).mean(dim=0)
            self.remember(mean, variance, picture.numel() // picture.shape[1] * world_size())
        else:
            mean, variance = self.moments
            centred = values - mean[:, None, None]
        normalised = centred * (variance + self.eps).rsqrt()[:, None, None]
        return (normalised * self.weight[:, None, None] + self.bias[:, None, None]).to(picture.dtype)

    @torch.no_grad()
    def remember(self, mean: torch.Tensor, variance: torch.Tensor, count: int) -> None:
        """Updates the running statistics with those of a global batch of `count` positions."""
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(variance * count / (count - 1), self.momentum)
        self.num_batches_tracked += 1


def see_global_batch(module: nn.Module, place: BatchPlace) -> None:
    """Replaces dropout and batch norm in `module` by those of this file. Names in its state dict stay."""
    for name, child in list(module.named_children()):
        if isinstance(child, nn.Dropout):
            setattr(module, name, GlobalDropout(child.p, place))
        elif isinstance(child, nn.BatchNorm2d):
            norm = GlobalBatchNorm2d(child.num_features, child.eps, child.momentum)
            norm.load_state_dict(child.state_dict())
            setattr(module, name, norm.to(child.weight.device))
        else:
            see_global_batch(child, place)
