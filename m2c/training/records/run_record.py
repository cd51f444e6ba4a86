"""`run.json`: how a run was started, each time that it was, so that it can be traced and started again."""

import json
import os
import shlex
import subprocess
import sys
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object

from m2c.checkpoints import public_name
from m2c.training.config import TrainingConfig
from m2c.versions import versions
from m2c.whole_files import write_whole

from .full_disk import naming_file


RUN_RECORD = "run.json"
# What names a place on this machine and changes nothing in a result.
LOCAL = ("output_dir", "resume", "cache_dir", "validation_root")
# By which a launcher tells its processes what its own command and configuration said.
LAUNCHER = ("ACCELERATE_", "FSDP_", "OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES")


def record_start(config: TrainingConfig, accelerator: Accelerator, checkpoint: Path | None = None) -> None:
    """Adds this start to `output_dir/run.json`: command, time, checkpoint that it goes on from, configuration, git state,
    releases, processes, how these work together, threads and devices.

    The file holds paths of this machine, in command, configuration and environment, and nothing else that names it. To be
    called by every process; the first one writes. Nobody goes on before all have come, so none finds the output folder filled
    by another.

    Raises:
        ValueError: if there is such a file that does not hold the starts of a run.
        OSError: if it cannot be written; the earlier one stays.
    """
    path, device = Path(config.output_dir, RUN_RECORD), accelerator.device
    earlier = _earlier_starts(path)
    # A GPU has a name of its own; of all else its kind is known.
    devices = gather_object([torch.cuda.get_device_name(device) if device.type == "cuda" else device.type])
    if not accelerator.is_main_process:
        return
    start = {
        "command": shlex.join(sys.orig_argv),
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "resumed_from": checkpoint and checkpoint.name,
        "config": asdict(config),
        "git": git_state(),
        "versions": versions(),
        "processes": accelerator.num_processes,
        "distributed": {
            "type": accelerator.distributed_type.value,
            "environment": _launched_with(),
            "deepspeed": _deepspeed(accelerator),
        },
        "threads": torch.get_num_threads(),
        "devices": devices,
    }
    with naming_file(path):
        write_whole(path, json.dumps([*earlier, start], indent=2) + "\n")


def public_config(config: TrainingConfig) -> dict:
    """The configuration without any place on this machine, for what is published."""
    public = {name: value for name, value in asdict(config).items() if name not in LOCAL}
    return {**public, **{name: public_name(public[name]) for name in ("model", "dataset")}}


def git_state(folder: Path = Path(__file__).parent) -> dict[str, str | bool] | None:
    """Commit of the checkout that a folder with code belongs to, and whether tracked files differ from it.

    `None` where the folder is not tracked by git: an installed package may well lie inside somebody else's checkout.
    """

    def git(*arguments: str) -> str:
        # Locks that `git status` may take would disturb whoever works in the checkout.
        command = ["git", "--no-optional-locks", "-C", str(folder), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        if not git("ls-files"):
            return None
        return {"commit": git("rev-parse", "HEAD"), "dirty": bool(git("status", "--porcelain", "--untracked-files=no"))}
    except (OSError, subprocess.CalledProcessError):
        return None


def _launched_with() -> dict[str, str]:
    return {name: value for name, value in sorted(os.environ.items()) if name.startswith(LAUNCHER)}


def _deepspeed(accelerator: Accelerator) -> dict | None:
    plugin = accelerator.state.deepspeed_plugin
    return None if plugin is None else plugin.deepspeed_config


def _earlier_starts(path: Path) -> list[dict]:
    if not path.exists():
        return []
    try:
        starts = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} cannot be read ({error}); move it away, and a new one is begun") from error
    if not isinstance(starts, list):
        raise ValueError(f"{path} does not hold the starts of a run; move it away, and a new one is begun")
    return starts
