"""One training run, from a configuration to a folder that `AutoModel` loads."""

import json
import shutil
from pathlib import Path

from accelerate import Accelerator
from accelerate.utils import DataLoaderConfiguration, set_seed
from safetensors import SafetensorError

from m2c.cache_dir import cache_folder
from m2c.checkpoints import load_model, load_processor, save_retriever
from m2c.whole_files import PARTIAL, write_whole
from modeling_m2c import M2CModel
from processing_m2c import M2CProcessor

from .config import TrainingConfig
from .data import build_data
from .loop import TrainingLoop
from .processes.agreement import on_main
from .processes.interruption import Interruption, naming_losses
from .processes.sharding import build_accelerator
from .records import tracking
from .records.identity import identity_of
from .records.lineage import record_of
from .records.run_folder import RECORD, find_checkpoint, forget_after, is_finished, only_run_in
from .records.run_record import public_config, record_start
from .tasks.build import build_task
from .validation import BenchmarkValidation, Validation, read_benchmark


def train(config: TrainingConfig) -> tuple[M2CModel, M2CProcessor]:
    """Runs one stage and writes model, processor, log and record to `config.output_dir`.

    Args:
        config: the run.

    Returns:
        The trained model in eval mode, and its processor.

    Raises:
        ValueError: for data, checkpoints or arguments that do not fit; the message names them.
        FileExistsError: if the output folder holds more than starts that ended before the first step, and no run that
            `config.resume` goes on with. Nothing in it is touched.
        OSError: if what was made cannot be written.
        Interrupted: if the run was asked to end, by SIGTERM or Ctrl-C; a checkpoint was written, or after the last step the
            model.
    """
    if config.dry_run:
        raise ValueError("train() trains; for dry_run there is m2c.training.rehearsal.rehearse")
    accelerator = build_accelerator(
        mixed_precision=config.mixed_precision,
        log_with=tracking.log_with(config),
        project_dir=Path(config.output_dir, tracking.TENSORBOARD_FOLDER),
        dataloader_config=DataLoaderConfiguration(use_seedable_sampler=True, data_seed=config.seed, non_blocking=True),
    )
    if on_main(lambda: is_finished(config)):
        accelerator.print(f"{config.output_dir} holds the finished run; nothing is left to do")
        return load_model(config.output_dir).eval(), load_processor(config.output_dir)
    with only_run_in(config), naming_losses():
        checkpoint = _begin(config, accelerator)
        set_seed(config.seed)
        task, model, processor = build_task(config, accelerator.device)
        data, held_out = build_data(config, model, processor)
        validation = Validation(accelerator, task, held_out, _benchmark(config, model, processor))
        identity = on_main(lambda: identity_of(config, model, processor, data.rows))
        loop = TrainingLoop(config, accelerator, task, data, validation, checkpoint, identity)
        on_main(lambda: forget_after(config, loop.step))
        tracking.start(accelerator, config, loop.step)
        with Interruption(accelerator) as interruption:
            try:
                loop.run(interruption)
            finally:
                tracking.end(accelerator)
            # Asked to end in here, a run ends with its model written: there may be no checkpoint of the last step.
            on_main(lambda: _save(config, accelerator, loop, model, processor))
    return model.eval(), processor


def _begin(config: TrainingConfig, accelerator: Accelerator) -> Path | None:
    """Writes a record of this start, and returns the checkpoint to go on from, if there is one."""
    checkpoint = on_main(lambda: find_checkpoint(config, accelerator.num_processes))
    record_start(config, accelerator, checkpoint)
    if checkpoint is not None:
        accelerator.print(f"going on from {checkpoint}")
    elif config.resume is not None:
        accelerator.print(f"there is no checkpoint in {config.output_dir} yet: beginning at step 0")
    return checkpoint


def _benchmark(config: TrainingConfig, model: M2CModel, processor: M2CProcessor) -> BenchmarkValidation | None:
    parts = read_benchmark(config)
    if not parts:
        return None
    return BenchmarkValidation(parts, model, processor, cache_folder(config.cache_dir), config.num_workers)


def _save(
    config: TrainingConfig, accelerator: Accelerator, loop: TrainingLoop, model: M2CModel, processor: M2CProcessor
) -> None:
    """Model, processor and record appear in the output folder when all are complete. The record, which says that the run is
    finished, comes last."""
    output_dir = Path(config.output_dir)
    partial = output_dir / f"model{PARTIAL}"
    shutil.rmtree(partial, ignore_errors=True)
    try:
        save_retriever(model, processor, partial)
        for path in partial.iterdir():
            path.replace(output_dir / path.name)
        partial.rmdir()
        write_whole(output_dir / RECORD, json.dumps(_record(config, accelerator, loop), indent=2) + "\n")
    except (OSError, RuntimeError, SafetensorError) as error:
        shutil.rmtree(partial, ignore_errors=True)
        raise OSError(
            f"the trained model could not be written to {output_dir}: {error}. Make room there, and go on with --resume"
        ) from error


def _record(config: TrainingConfig, accelerator: Accelerator, loop: TrainingLoop) -> dict:
    """What was run: the configuration, the size of data and model, and the last measurement."""
    return {
        "config": public_config(config),
        "processes": accelerator.num_processes,
        "training_rows": loop.batches.num_rows,
        "trained_parameters": sum(parameter.numel() for parameter in loop.training.updates.trained),
        "steps": loop.step,
        **loop.figures,
        "started_from": record_of(config.model),
    }
