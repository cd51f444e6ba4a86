"""Gradients of a contrastive batch that does not fit into memory: GradCache (arXiv 2101.06983), with dropout and batch norm.

The loss needs the features of the whole batch, but no more than those. So the batch passes through the trained modules in
chunks without gradient; the loss gives the gradient of the features; and each chunk passes once more, with gradient, to carry
it on to the weights. Memory depends on the chunk, and the gradient is that of the whole batch:

* dropout draws by row of the global batch ([`BatchPlace`]), so both passes of a chunk drop the same;
* batch norm couples the rows of a batch by mean and variance. These are measured in a pass of their own and then treated like
  the features: they collect a gradient, and a last pass carries it on to what they were measured from.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType

from m2c.training.processes.distributed import gather, world_size
from m2c.training.processes.fsdp import whole_weights
from m2c.training.tasks.global_batch import GlobalBatchNorm2d


class GradCache:
    """Takes the place of forward, loss and backward of a task.

    Args:
        task: as Accelerate prepared it.
        accelerator: of the run. Gradients are averaged over processes here, once for all chunks.
        chunk_size: rows that pass at a time, on each process.

    Raises:
        ValueError: under DeepSpeed.
    """

    def __init__(self, task: torch.nn.Module, accelerator: Accelerator, chunk_size: int):
        if accelerator.distributed_type == DistributedType.DEEPSPEED:
            raise ValueError("--chunk_size works with one process, DDP or FSDP, not with DeepSpeed; leave one of them out")
        self.task, self.accelerator, self.chunk_size = accelerator.unwrap_model(task), accelerator, chunk_size

    def backward(self, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Adds the gradient of the whole batch to what is trained, and returns the loss and its terms."""
        with whole_weights(self.task):
            terms = self._backward(batch)
            if self.accelerator.num_processes > 1:
                self._average_gradients()
        return terms

    def _average_gradients(self) -> None:
        for parameter in self.task.parameters():
            if parameter.requires_grad:
                parameter.grad = self.accelerator.reduce(parameter.grad, "mean")

    def _backward(self, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        place = self.task.place
        step, first_row = place.step, place.first_row
        rows = len(next(iter(batch.values())))
        chunks = []
        for start in range(0, rows, self.chunk_size):
            part = {name: tensor[start : start + self.chunk_size] for name, tensor in batch.items()}
            chunks.append((first_row + start, part))

        def run(chunk: tuple[int, dict]) -> dict[str, torch.Tensor]:
            place.begin(step, chunk[0])
            with self.accelerator.autocast():
                return self.task.forward(**chunk[1])  # not by a call: see `whole_weights`

        moments = _BatchMoments(self.task, [part for _, part in chunks], self.accelerator.autocast)
        moments.measure()
        with torch.no_grad():
            features = [run(chunk) for chunk in chunks]
        leaves = {name: torch.cat([part[name] for part in features]).requires_grad_() for name in features[0]}
        terms = self.task.loss(leaves, batch)
        self.accelerator.backward(terms["loss"])
        gradients = {name: leaf.grad.split(self.chunk_size) for name, leaf in leaves.items()}
        for index, chunk in enumerate(chunks):
            again = run(chunk)
            torch.autograd.backward(list(again.values()), [gradients[name][index] for name in again])
        moments.backward()
        return terms


class _BatchMoments:
    """Mean and variance of the whole batch, for every batch norm that trains."""

    def __init__(self, task: torch.nn.Module, chunks: list[dict], autocast: Callable[[], AbstractContextManager]):
        self.task, self.chunks, self.autocast = task, chunks, autocast
        self.norms = [module for module in task.modules() if isinstance(module, GlobalBatchNorm2d) and module.training]

    @torch.no_grad()
    def measure(self) -> None:
        """Gives every norm the moments of all chunks of all processes, as leaves that collect a gradient."""
        for norm in self.norms:
            # The inputs of the norms are wanted; what becomes of them is not.
            norm.moments = torch.zeros_like(norm.running_mean), torch.ones_like(norm.running_var)
        parts = [[_moments(values) for values in inputs] for inputs in self._inputs()]
        for norm, of_chunks in zip(self.norms, zip(*parts)):
            counts, means, variances = (torch.stack(each) for each in zip(*of_chunks))
            count, mean, variance = _pooled(counts, means, variances)
            mean, variance = _pooled(count.expand(world_size()), gather(mean[None]), gather(variance[None]))[1:]
            self.count = int(count) * world_size()
            norm.remember(mean, variance, self.count)
            norm.moments = mean.requires_grad_(), variance.requires_grad_()

    def backward(self) -> None:
        """Carries the gradient of the moments on to what they were measured from, and takes the moments back."""
        gradients = []
        for norm in self.norms:
            gradient = torch.stack([moment.grad for moment in norm.moments])
            gradients.append(gather(gradient[None]).sum(dim=0) / self.count)
        for inputs in self._inputs():
            total = 0
            for norm, values, (mean_gradient, variance_gradient) in zip(self.norms, inputs, gradients):
                # That the mean moves too is of second order for the variance around it.
                centred = values - norm.moments[0].detach()[:, None, None]
                total = total + (values.sum(dim=(0, 2, 3)) * mean_gradient).sum()
                total = total + (centred.square().sum(dim=(0, 2, 3)) * variance_gradient).sum()
            total.backward()
        for norm in self.norms:
            norm.moments = None

    def _inputs(self) -> Iterator[list[torch.Tensor]]:
        """What the norms are given for each chunk, in float32."""
        for chunk in self.chunks if self.norms else ():
            found: dict[torch.nn.Module, torch.Tensor] = {}

            def keep(norm: torch.nn.Module, inputs: tuple[torch.Tensor], found: dict = found) -> None:
                found[norm] = inputs[0].float()

            hooks = [norm.register_forward_pre_hook(keep) for norm in self.norms]
            with self.autocast():
                self.task.measure(**chunk)
            for hook in hooks:
                hook.remove()
            yield [found[norm] for norm in self.norms]


def _moments(values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Count, mean and variance of a picture's channels."""
    mean, variance = values.mean(dim=(0, 2, 3)), values.var(dim=(0, 2, 3), unbiased=False)
    return torch.tensor(float(values[:, 0].numel()), device=values.device), mean, variance


def _pooled(counts: torch.Tensor, means: torch.Tensor, variances: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Count, mean and variance of parts together, from those of each part along the first dimension."""
    shares = (counts / counts.sum())[:, None]
    mean = (shares * means).sum(dim=0)
    return counts.sum(), mean, (shares * (variances + (means - mean).square())).sum(dim=0)
