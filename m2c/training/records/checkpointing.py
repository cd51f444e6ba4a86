"""Checkpoints of a run: what is trained, the optimiser, the schedule and every random state."""

import json
import shutil
from pathlib import Path
from pickle import UnpicklingError

from accelerate import Accelerator
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from m2c.training.processes.agreement import first_failure, on_main
from m2c.training.tasks.trained_state import load_trained, trained_state

from .checkpoint_files import checkpoint_folder, checkpoints_in, complete, keep_newest, partial_of


TRAINED_WEIGHTS = "trained.safetensors"
PROGRESS = "progress.json"


def register_checkpoint_hooks(accelerator: Accelerator) -> None:
    """Makes `save_state` and `load_state` handle what is trained only, instead of the whole model."""

    def save(models: list[nn.Module], weights: list[dict], directory: str) -> None:
        if accelerator.is_main_process:
            state = trained_state(accelerator.unwrap_model(models[0]))
            save_file({name: tensor.contiguous() for name, tensor in state.items()}, Path(directory, TRAINED_WEIGHTS))
        weights.clear()

    def load(models: list[nn.Module], directory: str) -> None:
        state = load_file(Path(directory, TRAINED_WEIGHTS))
        while models:  # none under DeepSpeed, which loads by itself
            load_trained(accelerator.unwrap_model(models.pop()), state)

    accelerator.register_save_state_pre_hook(save)
    accelerator.register_load_state_pre_hook(load)


def save_checkpoint(accelerator: Accelerator, output_dir: str, progress: dict, keep: int) -> Path:
    """Writes `output_dir/checkpoints/step_<step>`, which appears under this name when it is complete, and then removes all but
    the `keep` newest.

    Args:
        accelerator: of the run; every process has to come here.
        output_dir: of the run, the same folder for all processes.
        progress: what else to remember, as JSON; its `step` names the checkpoint.
        keep: how many to keep.

    Raises:
        OSError: on every process, if one of them cannot write. Nothing is left of this checkpoint then; the others stay.
    """
    folder, error = checkpoint_folder(output_dir, progress["step"]), None
    try:
        accelerator.save_state(str(partial_of(folder)))
    except (OSError, RuntimeError, SafetensorError) as raised:  # what a full disk is, depends on the file that meets it
        error = raised
    failure = first_failure(error)

    def finish() -> None:
        try:
            if failure is not None:
                raise OSError(failure)
            Path(partial_of(folder), PROGRESS).write_text(json.dumps(progress, indent=2) + "\n")
            complete(folder)
        except OSError as raised:
            message = _no_checkpoint(folder, raised)
            shutil.rmtree(partial_of(folder), ignore_errors=True)
            raise OSError(message) from error or raised
        keep_newest(output_dir, keep)

    on_main(finish)
    return folder


def _no_checkpoint(folder: Path, error: OSError) -> str:
    # torch says what it was about to do, and not that the disk is full.
    free = f"{shutil.disk_usage(folder.parent).free / 1e9:.3f} GB free"
    others = checkpoints_in(folder.parent.parent)
    kept = f"{others[0]} is as it was" if others else "there is no earlier one"
    reason = str(error).partition("\n")[0]
    return f"the checkpoint {folder} could not be written ({reason}), with {free}; {kept}. Make room, and go on with --resume"


def load_checkpoint(accelerator: Accelerator, folder: Path) -> dict:
    """Restores weights, optimiser, schedule and random states, and returns what [`save_checkpoint`] got as `progress`.

    Raises:
        ValueError: if the files cannot be read, or are of another model.
    """
    try:
        accelerator.load_state(str(folder))
        return read_progress(folder)
    except (OSError, RuntimeError, ValueError, KeyError, EOFError, UnpicklingError, SafetensorError) as error:
        raise ValueError(f"the checkpoint {folder} cannot be read: {error}") from error


def read_progress(folder: Path) -> dict:
    return json.loads((folder / PROGRESS).read_text(encoding="utf-8"))
