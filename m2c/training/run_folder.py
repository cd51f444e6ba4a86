"""The output folder of a run: whose it is, and how far the run in it has come."""

import json
from dataclasses import asdict
from pathlib import Path

from . import run_log
from .checkpoint_files import checkpoints_in, damage_of, keep_newest, newest_whole, remove, remove_leftovers, step_of
from .checkpointing import read_progress
from .config import LATEST, TrainingConfig
from .run_record import RUN_RECORD, public_config
from .whole_files import PARTIAL


# Written last: a folder that has it holds a finished run.
RECORD = "training.json"

# What may change when a run goes on.
FREE = {
    "output_dir",
    "resume",
    "num_workers",
    "cache_dir",
    "cache_limit_gb",
    "validation_root",
    "eval_steps",
    "checkpoint_steps",
    "keep_checkpoints",
    "log_steps",
    "report_to",
    "dry_run",
}


def is_finished(config: TrainingConfig) -> bool:
    """Whether `--resume` finds a finished run in the output folder. One that stopped early is not, for whom has more patience.

    Raises:
        ValueError: if it does, but of other settings.
    """
    path = Path(config.output_dir, RECORD)
    if config.resume != LATEST or not path.is_file():
        return False
    record = json.loads(path.read_text(encoding="utf-8"))
    changed = _changed(_fixed(record["config"]), _fixed(public_config(config)))
    if changed:
        raise ValueError(f"{config.output_dir} holds a finished run of other settings: {changed}; choose another --output_dir")
    return record["steps"] == config.max_steps or record["config"]["early_stopping"] >= config.early_stopping


def open_run_folder(config: TrainingConfig, processes: int) -> Path | None:
    """Makes the output folder, or takes that of a killed run: removes what was not complete in it, and all that came after the
    checkpoint to go on from. For the main process.

    Returns:
        The checkpoint to go on from; `None` to begin.

    Raises:
        FileExistsError: if the folder holds anything but such a run. Nothing in it is touched.
        ValueError: if the checkpoint is damaged, or of a run with other settings.
    """
    output_dir = Path(config.output_dir)
    refuse_foreign(config)
    checkpoint = _checkpoint(config)
    if checkpoint is not None:
        changed = _changed(read_progress(checkpoint)["settings"], settings(config, processes))
        if changed:
            raise ValueError(f"the checkpoint {checkpoint} is of another run: {changed}")
    output_dir.mkdir(parents=True, exist_ok=True)
    (output_dir / RECORD).unlink(missing_ok=True)
    remove_leftovers(output_dir)
    step = 0 if checkpoint is None else step_of(checkpoint)
    for later in checkpoints_in(output_dir):
        if step_of(later) > step:
            remove(later)
    keep_newest(output_dir, config.keep_checkpoints)
    run_log.forget_after(output_dir, step)
    return checkpoint


def settings(config: TrainingConfig, processes: int) -> dict:
    """What must be the same for a resumed run to take the same steps, as JSON holds it."""
    return json.loads(json.dumps({**_fixed(asdict(config)), "processes": processes}))


def _fixed(config: dict) -> dict:
    free = FREE - {"num_workers"} if config["streaming"] else FREE  # workers that stream have shards of their own
    fixed = {name: value for name, value in config.items() if name not in free}
    # Its patience may change, and not whether best weights are kept.
    return {**fixed, "early_stopping": config["early_stopping"] > 0}


def _changed(then: dict, now: dict) -> str:
    return "; ".join(f"{name} was {then.get(name)}, is {value}" for name, value in now.items() if then.get(name) != value)


def refuse_foreign(config: TrainingConfig) -> None:
    """Raises `FileExistsError` if the output folder holds anything but an unfinished run that `--resume` goes on with."""
    output_dir = Path(config.output_dir)
    if output_dir.exists() and not output_dir.is_dir():
        raise FileExistsError(f"{output_dir} is a file; choose another --output_dir")
    names = {path.name for path in output_dir.iterdir()} if output_dir.exists() else set()
    if not names:
        return
    if config.resume == LATEST:
        # The record is the first file of a run; a kill may come while it is written.
        is_own = RUN_RECORD in names or names == {Path(RUN_RECORD).with_suffix(PARTIAL).name}
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
