"""`--dry_run`: looks at data and model, takes one step, and says what a run would do. Nothing is written."""

import resource
import sys
import time
from collections.abc import Callable
from dataclasses import replace

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from torch.utils.data import Dataset

from m2c.cache_dir import cache_folder
from m2c.checkpoints import public_name

from .batches import IndexedBatches, StreamedBatches
from .build import build_task
from .config import TrainingConfig
from .data import build_data, encoder
from .feature_cache import FeatureCache
from .run_folder import refuse_foreign
from .sharding import check_sharding
from .step import TrainingStep
from .validation import read_benchmark


# Rows spread over the whole data set, whose images are opened.
SAMPLED_ROWS = 64


def rehearse(config: TrainingConfig, say: Callable[[str], None] = print) -> None:
    """Says how large model, data and features are, and what one step costs on this machine.

    Args:
        config: of the run. Features are not stored, and one step encodes what it needs.
        say: prints a line.

    Raises:
        ValueError: for data, checkpoints or arguments that do not fit, as the run itself would.
        FileExistsError: if the run would refuse its output folder.
    """
    refuse_foreign(config)
    accelerator = Accelerator(mixed_precision=config.mixed_precision)
    check_sharding(accelerator)
    set_seed(config.seed)
    task, model, processor = build_task(config, accelerator.device)
    _say_model(config, task, say)
    read_benchmark(config)
    uncached = replace(config, cached_views=0, validation_size=0)
    samples, _ = build_data(uncached, model, processor)
    batches = (StreamedBatches if config.streaming else IndexedBatches)(samples, uncached, accelerator)
    _say_data(config, samples, batches.num_rows, accelerator.num_processes, say)
    if config.cached_views:
        size = FeatureCache(config, model, encoder(config)).row_bytes(samples) * len(samples) * config.cached_views
        say(f"features: {size / 1e9:.3f} GB in {cache_folder(config.cache_dir)}, for views: {config.cached_views}")
    _say_step(config, TrainingStep(uncached, accelerator, task, is_encoded=False), batches, say)
    say(f"output: {config.output_dir}. This was a dry run; nothing was written.")


def _say_model(config: TrainingConfig, task: torch.nn.Module, say: Callable[[str], None]) -> None:
    total = sum(parameter.numel() for parameter in task.parameters())
    trained = sum(parameter.numel() for parameter in task.parameters() if parameter.requires_grad)
    say(f"model: {public_name(config.model)}, {total / 1e6:.1f} M parameters, of which {trained / 1e6:.2f} M are trained")


def _say_data(
    config: TrainingConfig, samples: Dataset, num_rows: int | None, processes: int, say: Callable[[str], None]
) -> None:
    batch = config.batch_size * processes
    steps = f"{config.max_steps} steps of {batch} rows over {processes} process" + "es" * (processes > 1)
    if num_rows is None:
        say(f"data: {config.dataset}, a stream; {steps}")
        return
    looked_at = sorted({round(part * (num_rows - 1) / (SAMPLED_ROWS - 1)) for part in range(SAMPLED_ROWS)})
    for row in looked_at:
        samples[row]
    epochs = config.max_steps / (num_rows // batch)
    say(f"data: {config.dataset}, {num_rows} rows, {len(looked_at)} of them opened; {steps}, {epochs:.1f} epochs")


def _say_step(
    config: TrainingConfig,
    step: TrainingStep,
    batches: IndexedBatches | StreamedBatches,
    say: Callable[[str], None],
) -> None:
    """Takes two steps, as the first one allocates what later ones find."""
    batch = next(batches.since(0))
    for number in range(2):
        started = time.perf_counter()
        terms, _ = step.take(number, batch)
        loss = terms["loss"].item()
    seconds = time.perf_counter() - started
    hours = seconds * config.max_steps / 3600
    encoding = ", with the encoding that stored features would save" if config.cached_views else ""
    say(f"step: {seconds:.2f} s after reading{encoding}; {config.max_steps} take {hours:.2f} h; first loss {loss:.3f}")
    say(f"memory: {_peak_memory() / 1e9:.2f} GB at most, on this process")


def _peak_memory() -> int:
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
