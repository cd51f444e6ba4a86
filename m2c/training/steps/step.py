"""One step of training: from a batch to weights that have moved."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from accelerate import Accelerator
from peft.helpers import disable_input_dtype_casting

from m2c.training.config import TrainingConfig
from m2c.training.features.encoding import BATCH_SIZE, Encoder, widen
from m2c.training.processes.fsdp import whole_state, whole_weights
from m2c.training.processes.sharding import prepare, shard, tell_deepspeed
from m2c.training.tasks.stages import ComposingTask, MappingTask

from .grad_cache import GradCache
from .optimization import build_optimizer, build_schedule
from .updates import Updates


class TrainingStep:
    """All that a step needs.

    Args:
        config: of the run.
        accelerator: of the run.
        task: what is trained; in place.
        encode: what to do to a batch of samples; `None` where batches are of stored features.
    """

    def __init__(
        self,
        config: TrainingConfig,
        accelerator: Accelerator,
        task: MappingTask | ComposingTask,
        encode: Encoder | None,
    ):
        self.config, self.accelerator = config, accelerator
        self.model, self.place, self.loss = task.model, task.place, task.loss
        self.encode = encode
        shard(accelerator, task)
        optimizer = build_optimizer(task, config)
        self.schedule = build_schedule(optimizer, config)
        tell_deepspeed(accelerator, config)
        self.task, optimizer = prepare(accelerator, task, optimizer)
        self.updates = Updates(accelerator, task, optimizer, self.schedule, config.max_grad_norm)
        self.grad_cache = GradCache(self.task, accelerator, config.chunk_size) if config.chunk_size else None

    def take(self, step: int, batch: dict[str, torch.Tensor]) -> tuple[dict[str, torch.Tensor], bool]:
        """Takes the step of this number, counted from 0. Returns the loss and its terms, and whether the weights have moved."""
        self.task.train()
        # Dropout depends on seed, step and row of the global batch alone, so a resumed run draws what an uninterrupted one
        # would have drawn, and two processes what one would.
        self.place.begin(step, self.accelerator.process_index * self.config.batch_size)
        batch = widen(batch) if self.encode is None else self._encode(batch)
        self.updates.begin()
        # Autocast casts what a product takes. PEFT would first widen it to the adapters' float32: two copies for nothing.
        with disable_input_dtype_casting(self.model):
            terms = self._backward(batch)
        return terms, self.updates.finish()

    def _encode(self, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Features of a batch, some rows at a time."""
        rows = len(next(iter(batch.values())))
        size = min(self.config.chunk_size or BATCH_SIZE, BATCH_SIZE)
        parts = []
        for start in range(0, rows, size):
            with self.accelerator.autocast():
                parts.append(self.encode(self.model, {name: x[start : start + size] for name, x in batch.items()}))
        return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}

    def _backward(self, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        if self.grad_cache is not None:
            return self.grad_cache.backward(batch)
        with self.accelerator.autocast():
            features = self.task(**batch)
        terms = self.loss(features, batch)
        self.accelerator.backward(terms["loss"])
        return terms

    @contextmanager
    def whole(self) -> Iterator[None]:
        """What is trained and the optimiser's state are whole in here, on every process, to be stored or loaded."""
        with whole_weights(self.task), whole_state(self.updates.optimizer):
            yield

    def state_dict(self) -> dict:
        """What checkpoints hold of a step besides weights and optimiser, as JSON."""
        return {"schedule": self.schedule.state_dict(), "skipped": self.updates.skipped}

    def load_state_dict(self, state: dict) -> None:
        self.schedule.load_state_dict(state["schedule"])
        self.updates.skipped = state["skipped"]
