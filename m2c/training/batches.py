"""Batches of a run from any step on: the same ones, whether the run came there or was resumed there."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import count, islice

import torch
from accelerate import Accelerator, skip_first_batches
from torch.utils.data import DataLoader, Dataset
from tqdm.auto import tqdm

from .config import TrainingConfig
from .features.encoding import CachedFeatures
from .processes.interruption import leave_signals_to_the_run
from .samples.streams import StreamedSamples


Batch = dict[str, torch.Tensor]


class IndexedBatches:
    """Batches of data with an index: all rows in a new order in each epoch, shared by the processes; the rest is left out.

    Raises:
        ValueError: if there are fewer rows than a batch of all processes takes.
    """

    def __init__(self, data: Dataset, config: TrainingConfig, accelerator: Accelerator):
        if len(data) < config.batch_size * accelerator.num_processes:
            raise ValueError(
                f"--batch_size {config.batch_size} times {accelerator.num_processes} processes is more than the {len(data)} "
                "rows to train on"
            )
        self.data, self.num_rows, self.device = data, len(data), accelerator.device
        loader = DataLoader(
            data,
            config.batch_size,
            shuffle=True,
            drop_last=True,
            collate_fn=data.collate,
            num_workers=0 if isinstance(data, CachedFeatures) else config.num_workers,
            pin_memory=self.device.type == "cuda",
            worker_init_fn=leave_signals_to_the_run,
            # Of its own: what else draws must not depend on when a batch is read.
            generator=torch.Generator(),
        )
        self.loader = accelerator.prepare_data_loader(loader)

    def since(self, step: int) -> Iterator[Batch]:
        """The batches of `step`, counted from 0, and of all steps that follow, on the device of this process."""
        return ahead(self._since(step), self.device)

    def _since(self, step: int) -> Iterator[Batch]:
        first_epoch, done = divmod(step, len(self.loader))
        for epoch in count(first_epoch):
            self.loader.set_epoch(epoch)
            self.data.set_epoch(epoch)
            yield from _each(skip_first_batches(self.loader, done) if done else self.loader)
            done = 0


class StreamedBatches:
    """Batches of a stream. Workers take turns, and each fills a batch alone."""

    num_rows = None  # nobody knows

    def __init__(self, samples: StreamedSamples, config: TrainingConfig, accelerator: Accelerator):
        self.samples, self.device = samples, accelerator.device
        if samples.num_workers < config.num_workers and accelerator.is_main_process:
            tqdm.write(f"workers that stream: {samples.num_workers} of {config.num_workers}, as there are no more shards")

    def since(self, step: int) -> Iterator[Batch]:
        """The batches of `step`, counted from 0, and of all steps that follow, on the device of this process.

        Rows of earlier steps are read again, which takes some time.
        """
        return ahead(self._since(step), self.device)

    def _since(self, step: int) -> Iterator[Batch]:
        self.samples.first_batch, turn = divmod(step, max(self.samples.num_workers, 1))
        loader = DataLoader(
            self.samples,
            batch_size=None,
            num_workers=self.samples.num_workers,
            pin_memory=self.device.type == "cuda",
            worker_init_fn=leave_signals_to_the_run,
            # Of its own: a resumed run must not draw otherwise than one that went through.
            generator=torch.Generator(),
        )
        for batch in islice(_each(loader), turn, None):
            yield {name: tensor.to(self.device, non_blocking=True) for name, tensor in batch.items()}


def ahead(batches: Iterator[Batch], device: torch.device) -> Iterator[Batch]:
    """The same batches. Where CUDA takes the steps, a thread has the next batch read and moved meanwhile; a CPU has nothing to
    spare for it."""
    return read_ahead(batches, partial(torch.cuda.set_device, device)) if device.type == "cuda" else batches


def read_ahead(batches: Iterator[Batch], prepare: Callable[[], None]) -> Iterator[Batch]:
    """The same batches, one of them read ahead by a thread that begins with `prepare`."""
    with ThreadPoolExecutor(1, initializer=prepare) as thread:
        coming = thread.submit(next, batches, None)
        while (batch := coming.result()) is not None:
            coming = thread.submit(next, batches, None)
            yield batch


def _each(loader: DataLoader) -> Iterator[Batch]:
    try:
        yield from loader
    except Exception as error:
        if loader.num_workers == 0:
            raise
        # The frames of this process would keep the workers alive, until PyTorch waits some seconds for each of them at exit.
        # Those of the worker are part of the message.
        raise error.with_traceback(None) from error.__cause__
