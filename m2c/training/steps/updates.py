"""What a gradient does to the weights, and what happens when it is not finite."""

import math

from accelerate import Accelerator
from accelerate.optimizer import AcceleratedOptimizer
from torch import nn
from torch.optim.lr_scheduler import LRScheduler

from m2c.training.tasks.trained_state import trained_buffers


class Updates:
    """The steps of the optimiser, without those whose gradient is not finite.

    A skipped step leaves weights, optimiser and statistics of batch norm as they were, so they are finite at any time. The
    learning rate goes on all the same: it depends on the step alone, and the schedule ends with the run. All processes have the
    same gradient and decide alike.

    Args:
        accelerator: of the run.
        task: what is trained, not wrapped.
        optimizer: as Accelerate prepared it.
        schedule: of the learning rate, not prepared by Accelerate.
        max_norm: gradients are clipped to it; 0 for none.

    Attributes:
        skipped: steps in a row, up to now, that were skipped. It belongs into checkpoints.
    """

    def __init__(
        self,
        accelerator: Accelerator,
        task: nn.Module,
        optimizer: AcceleratedOptimizer,
        schedule: LRScheduler,
        max_norm: float,
    ):
        self.accelerator, self.optimizer, self.schedule, self.max_norm = accelerator, optimizer, schedule, max_norm or math.inf
        self.trained = [parameter for parameter in task.parameters() if parameter.requires_grad]
        self.buffers = list(trained_buffers(task).values())
        self.skipped = 0

    def begin(self) -> None:
        """To be called before the forward pass, which changes the statistics of batch norm."""
        self.optimizer.zero_grad()
        self.buffers_before = [buffer.clone() for buffer in self.buffers]

    def finish(self) -> bool:
        """Takes the step that the gradient asks for, after the backward pass. Returns whether it did."""
        norm = self.accelerator.clip_grad_norm_(self.trained, self.max_norm)
        is_finite = norm is None or math.isfinite(norm)  # DeepSpeed has no norm before its first step, and then a float
        if is_finite or self.accelerator.scaler is not None:
            # The scaler of fp16 skips by itself, and lowers the scale then.
            self.optimizer.step()
        if not is_finite:
            for buffer, before in zip(self.buffers, self.buffers_before):
                buffer.copy_(before)
        self.schedule.step()
        self.skipped = 0 if is_finite else self.skipped + (not self._is_searching_scale())
        return is_finite

    def _is_searching_scale(self) -> bool:
        """Whether fp16 still has larger scales than one to leave behind; until then an overflow is no sign of trouble."""
        scaler = self.accelerator.scaler
        return scaler is not None and scaler.get_scale() >= 1
