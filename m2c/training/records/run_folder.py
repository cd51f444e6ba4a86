"""The output folder of a run: whose it is, and how far the run in it has come."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from m2c.training.config import LATEST, TrainingConfig
from m2c.training.processes.agreement import on_main
from m2c.whole_files import PARTIAL

from . import log as run_log
from .checkpoint_files import checkpoints_in, damage_of, keep_newest, newest_whole, remove, remove_leftovers, step_of
from .checkpointing import read_progress
from .run_record import RUN_RECORD, public_config
from .settings import changes, fixed, settings, sources


# Written last: a folder that has it holds a finished run.
RECORD = "training.json"
LOCK = ".lock"


def is_finished(config: TrainingConfig) -> bool:
    """Whether `--resume` finds a finished run in the output folder. One that stopped early is not, for whom has more patience.

    Raises:
        ValueError: if it does, but of other settings.
    """
    path = Path(config.output_dir, RECORD)
    if config.resume != LATEST or not path.is_file():
        return False
    record = json.loads(path.read_text(encoding="utf-8"))
    changed = changes(*({**fixed(run), **sources(run)} for run in (record["config"], public_config(config))))
    if changed:
        raise ValueError(f"{config.output_dir} holds a finished run of other settings: {changed}; choose another --output_dir")
    return record["steps"] == config.max_steps or record["config"]["early_stopping"] >= config.early_stopping


def find_checkpoint(config: TrainingConfig, processes: int) -> Path | None:
    """The checkpoint to go on from; `None` to begin. Nothing is touched.

    Raises:
        FileExistsError: if the output folder holds anything but a run to go on with.
        ValueError: if the checkpoint is damaged, or of a run with other settings.
    """
    _refuse_foreign(config)
    checkpoint = _checkpoint(config)
    if checkpoint is not None:
        changed = changes(read_progress(checkpoint)["settings"], settings(config, processes))
        if changed:
            raise ValueError(f"the checkpoint {checkpoint} is of another run: {changed}")
    return checkpoint


def check_resume(checkpoint: Path, num_rows: int | None, identity: dict[str, str | None]) -> None:
    """Raises `ValueError` if a checkpoint is of a run on other rows, or of another identity; see [`identity_of`]."""
    progress = read_progress(checkpoint)
    if progress["rows"] != num_rows:
        raise ValueError(
            f"{checkpoint} is of a run on {progress['rows']} rows; now there are {num_rows} to train on. In place of rows that "
            "are no good there must be others"
        )
    changed = [f"--{name}" for name, key in identity.items() if progress["identity"][name] != key]
    if changed:
        raise ValueError(
            f"{checkpoint} is of another run: what {' and '.join(changed)} names is not what it was. Only its place may change"
        )


@contextmanager
def only_run_in(config: TrainingConfig) -> Iterator[None]:
    """Makes the output folder, or takes that of an earlier start of the run, for this start alone: a cluster may begin a job
    again before it has ended.

    Raises:
        FileExistsError: if the folder holds anything but a run to go on with, or one that still goes on.
    """
    lock = FileLock(Path(config.output_dir, LOCK))

    def acquire() -> None:
        _refuse_foreign(config)
        Path(config.output_dir).mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise FileExistsError(
                f"another run is at work in {config.output_dir}; wait until it has ended, or choose another --output_dir"
            ) from None

    on_main(acquire)
    try:
        yield
    finally:
        if lock.is_locked:  # on the first process
            Path(lock.lock_file).unlink()
        lock.release()


def forget_after(config: TrainingConfig, step: int) -> None:
    """Removes from the output folder what was not complete, and all that came after a step, as the run goes on from there. To
    be done when the checkpoint of that step has proved to be one of this run."""
    output_dir = Path(config.output_dir)
    (output_dir / RECORD).unlink(missing_ok=True)
    remove_leftovers(output_dir)
    for later in checkpoints_in(output_dir):
        if step_of(later) > step:
            remove(later)
    keep_newest(output_dir, config.keep_checkpoints)
    run_log.forget_after(output_dir, step)


def _refuse_foreign(config: TrainingConfig) -> None:
    """Raises `FileExistsError` if the output folder holds anything but a run that `--resume` goes on with, or starts that came
    to nothing, as by an option that was wrong."""
    output_dir = Path(config.output_dir)
    if output_dir.exists() and not output_dir.is_dir():
        raise FileExistsError(f"{output_dir} is a file; choose another --output_dir")
    names = {path.name for path in output_dir.iterdir() if path.name != LOCK} if output_dir.exists() else set()
    # The record is the first file of a run; a kill may come while it is written.
    if names <= {RUN_RECORD, Path(RUN_RECORD).with_suffix(PARTIAL).name}:
        return
    if config.resume == LATEST:
        is_own = RUN_RECORD in names
    else:
        is_own = config.resume is not None and output_dir.resolve() in Path(config.resume).resolve().parents
    if not is_own:
        raise FileExistsError(
            f"{output_dir} exists and is not empty; choose another --output_dir, remove it, or go on with --resume if it is of "
            "an interrupted run"
        )


def _checkpoint(config: TrainingConfig) -> Path | None:
    if config.resume is None:
        return None
    if config.resume == LATEST:
        return newest_whole(config.output_dir, run_log.warn)
    folder = Path(config.resume)
    damage = damage_of(folder)
    if damage is not None:
        raise ValueError(f"{folder} is not a checkpoint of a training run, or damaged: {damage}")
    return folder
