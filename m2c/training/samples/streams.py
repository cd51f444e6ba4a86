"""Training samples from a stream of rows: for data sets that do not fit on the disk."""

from collections.abc import Iterator
from functools import partial
from itertools import count, islice

import numpy as np
import torch
import xxhash
from accelerate import PartialState
from datasets import Dataset, IterableDataset
from datasets.distributed import split_dataset_by_node
from torch.utils.data import get_worker_info

from m2c.data.loading import ROW_NAME, each_row
from m2c.training.config import TrainingConfig
from processing_m2c import M2CProcessor

from .captions import CaptionSamples
from .images import PairSamples, TripletSamples


class StreamedSamples(torch.utils.data.IterableDataset):
    """Batches of samples of the rows of a stream, epoch after epoch, without end.

    Each reader, which is a worker of the data loader of a process, or the process itself if it has no workers, has shards of
    its own, the same in every epoch: no two readers ever draw the same row. Where there are fewer shards than processes, each
    process takes its share of the rows of all shards instead. In every epoch a reader shuffles its shards, then the rows within
    a buffer, and leaves out what does not fill a batch, so that no batch holds a row twice. What it draws depends on the data,
    seed, batch size, buffer and the numbers of processes and workers alone.

    Args:
        samples: what is made of a row. Its `rows` are the stream; see [`m2c.data.loading.load_stream`].
        config: of the run.

    Attributes:
        num_workers: readers of this process; 0 for the process itself.
        rows: none that can be named by number.
        first_batch: how many batches each reader passes over; their images are not decoded.
    """

    rows = None

    def __init__(self, samples: PairSamples | TripletSamples | CaptionSamples, config: TrainingConfig):
        self.samples, self.config = samples, config
        state, stream = PartialState(), samples.rows
        if stream.num_shards < state.num_processes * max(config.num_workers, 1):
            stream = stream.reshard()  # parquet: row groups instead of files
        if stream.num_shards < state.num_processes:
            self.stream = split_dataset_by_node(stream, state.process_index, state.num_processes)
        else:
            self.stream = stream.shard(state.num_processes, state.process_index, contiguous=False)
        self.process = state.process_index
        self.num_workers = min(config.num_workers, self.stream.num_shards)
        self.first_batch = 0

    @property
    def processor(self) -> M2CProcessor:
        return self.samples.processor

    def __iter__(self) -> Iterator[dict[str, torch.Tensor]]:
        """
        Raises:
            ValueError: if an image cannot be read, the stream breaks off, or this reader has less rows than a batch.
        """
        worker, stream, to_skip = get_worker_info(), self.stream, self.first_batch
        reader = f"{self.process}:0"
        if worker is not None:
            stream = stream.shard(worker.num_workers, worker.id, contiguous=False)
            reader = f"{self.process}:{worker.id}"
        for epoch in count():
            self.samples.set_epoch(epoch)
            for number, rows in enumerate(self._batches_of_rows(stream, epoch)):
                if to_skip > 0:
                    to_skip -= 1
                    continue
                first = number * self.config.batch_size
                yield self.samples.collate(
                    [self.samples.prepare(row, f"{reader}:{place}") for place, row in enumerate(rows, first)]
                )

    def _batches_of_rows(self, stream: IterableDataset, epoch: int) -> Iterator[list[dict]]:
        size, generator = self.config.batch_size, np.random.default_rng([self.config.seed, epoch])
        # One shard at a time: to read several, threads are used, and some seconds pass in every epoch until they have ended.
        shuffled = stream.shuffle(generator=generator, buffer_size=self.config.shuffle_buffer, max_buffer_input_shards=1)
        rows = each_row(shuffled)
        batch = list(islice(rows, size))
        if len(batch) < size:
            raise ValueError(
                f"--batch_size {size} is more than the {len(batch)} rows of a process that reads the stream; lower it, or "
                "--num_workers, or leave out --streaming"
            )
        while len(batch) == size:
            yield batch
            batch = list(islice(rows, size))


def hold_out(stream: IterableDataset, num_rows: int) -> tuple[IterableDataset, Dataset]:
    """The first rows of a stream, read into memory to validate on; before them, the stream without any row that equals one.

    Raises:
        ValueError: if nothing would be left to train on.
    """
    rows = list(islice(each_row(stream), num_rows + 1))
    if len(rows) <= num_rows:
        raise ValueError(f"--validation_size {num_rows} leaves nothing of {len(rows)} rows to train on")
    held_out = Dataset.from_list(rows[:num_rows], features=stream.features)
    return stream.filter(partial(_is_new, known={_digest(row) for row in rows[:num_rows]})), held_out


def _is_new(row: dict, known: set[str]) -> bool:
    return _digest(row) not in known


def _digest(row: dict) -> str:
    digest = xxhash.xxh3_128()
    for column in sorted(row.keys() - {ROW_NAME}):
        value = row[column] or ""
        content = (value["bytes"] or value["path"]) if isinstance(value, dict) else value
        digest.update(content if isinstance(content, bytes) else content.encode())
        digest.update(b"\0")
    return digest.hexdigest()
