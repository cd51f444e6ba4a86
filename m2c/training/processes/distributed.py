"""Contrastive losses see the batches of every process: a gather that keeps the gradient."""

import torch
import torch.distributed as dist


class _AllGather(torch.autograd.Function):
    @staticmethod
    def forward(ctx, tensor: torch.Tensor) -> torch.Tensor:
        ctx.rows = tensor.shape[0]
        gathered = [torch.empty_like(tensor) for _ in range(dist.get_world_size())]
        dist.all_gather(gathered, tensor.contiguous())
        return torch.cat(gathered)

    @staticmethod
    def backward(ctx, gradient: torch.Tensor) -> torch.Tensor:
        # Every process has a loss of its own that depends on this process's rows: the sum is their whole gradient.
        gradient = gradient.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(gradient)
        start = dist.get_rank() * ctx.rows
        return gradient[start : start + ctx.rows]


def world_size() -> int:
    """How many processes train together; 1 without a launcher."""
    return dist.get_world_size() if dist.is_initialized() else 1


def gather(tensor: torch.Tensor) -> torch.Tensor:
    """The rows of all processes, in the order of their ranks; every process must hold equally many.

    `(batch_size, dim)` becomes `(world_size * batch_size, dim)`, with gradient to the rows of every process. Without
    processes it is the tensor itself.
    """
    return tensor if world_size() == 1 else _AllGather.apply(tensor)


def label_offset(batch_size: int) -> int:
    """Where this process's rows begin in what [`gather`] returns."""
    return dist.get_rank() * batch_size if world_size() > 1 else 0
