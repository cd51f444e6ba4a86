"""`--dry_run`: looks at data and model, takes one step, and says what a run would do. Nothing is written."""

import time
from collections.abc import Callable

import torch
from accelerate.utils import set_seed
from torch.utils.data import Dataset

from m2c.checkpoints import public_name

from .batches import IndexedBatches, StreamedBatches
from .config import TrainingConfig
from .data import read_samples
from .features.cache import FeatureCache
from .features.encoding import Encoder
from .memory import peak_memory
from .processes.interruption import naming_losses
from .processes.sharding import build_accelerator
from .records import tracking
from .records.identity import identity_of
from .records.run_folder import check_resume, find_checkpoint, is_finished
from .steps.step import TrainingStep
from .tasks.build import build_task
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
        OSError: if there is no space for features.
    """
    accelerator = build_accelerator(mixed_precision=config.mixed_precision)
    tracking.log_with(config)
    if is_finished(config):
        say(f"{config.output_dir} holds the finished run; nothing is left to do")
        return
    checkpoint = find_checkpoint(config, accelerator.num_processes)
    set_seed(config.seed)
    task, model, processor = build_task(config, accelerator.device)
    _say_model(config, task, say)
    read_benchmark(config)
    samples, held_out = read_samples(config, processor)
    batches = (StreamedBatches if config.streaming else IndexedBatches)(samples, config, accelerator)
    if checkpoint is not None:
        check_resume(checkpoint, batches.num_rows, identity_of(config, model, processor, samples.rows))
        say(f"checkpoint: goes on from {checkpoint}")
    _say_data(config, samples, batches.num_rows, accelerator.num_processes, say)
    encode = Encoder(config, processor)
    cache = FeatureCache(config, model, encode)
    if held_out is not None:
        say(f"held out: {len(held_out)} rows, {_open_some(held_out)} of them opened; {cache.check(held_out, 1)}")
    if config.cached_views:
        say(f"features: {cache.check(samples, config.cached_views)}")
    with naming_losses():
        _say_step(config, TrainingStep(config, accelerator, task, encode), batches, say)
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
    epochs = config.max_steps / (num_rows // batch)
    say(f"data: {config.dataset}, {num_rows} rows, {_open_some(samples)} of them opened; {steps}, {epochs:.1f} epochs")


def _open_some(samples: Dataset) -> int:
    """Returns of how many rows."""
    last = len(samples) - 1
    looked_at = {round(part * last / (SAMPLED_ROWS - 1)) for part in range(SAMPLED_ROWS)}
    for row in sorted(looked_at):
        samples[row]
    return len(looked_at)


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
    say(f"memory: {peak_memory(step.accelerator.device) / 1e9:.2f} GB at most, on this process")
