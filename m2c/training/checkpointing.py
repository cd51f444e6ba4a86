"""Checkpoints of a run: what is trained, the optimiser, the schedule and every random state."""

import json
import os
import shutil
from dataclasses import asdict
from pathlib import Path
from pickle import UnpicklingError

import torch
from accelerate import Accelerator
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from .config import TrainingConfig


TRAINED_WEIGHTS = "trained.safetensors"
PROGRESS = "progress.json"


def trained_state(task: nn.Module) -> dict[str, torch.Tensor]:
    """Trainable parameters and the buffers of the modules that hold them; the frozen CLIP is not among them."""
    trained = {name for name, parameter in task.named_parameters() if parameter.requires_grad}
    modules = {name.rpartition(".")[0] for name in trained}
    buffers = {name for name, _ in task.named_buffers() if name.rpartition(".")[0] in modules}
    return {name: tensor for name, tensor in task.state_dict().items() if name in trained | buffers}


def register_checkpoint_hooks(accelerator: Accelerator) -> None:
    """Makes `save_state` and `load_state` handle what is trained only, instead of the whole model."""

    def save(models: list[nn.Module], weights: list[dict], directory: str) -> None:
        if accelerator.is_main_process:
            state = trained_state(accelerator.unwrap_model(models[0]))
            save_file({name: tensor.contiguous() for name, tensor in state.items()}, Path(directory, TRAINED_WEIGHTS))
        weights.clear()

    def load(models: list[nn.Module], directory: str) -> None:
        state = load_file(Path(directory, TRAINED_WEIGHTS))
        accelerator.unwrap_model(models.pop()).load_state_dict(state, strict=False)

    accelerator.register_save_state_pre_hook(save)
    accelerator.register_load_state_pre_hook(load)


def save_checkpoint(accelerator: Accelerator, config: TrainingConfig, step: int) -> Path:
    """Writes `output_dir/checkpoints/step_<step>`; it appears under this name only when it is complete."""
    final = Path(config.output_dir, "checkpoints", f"step_{step:06d}")
    partial = final.with_suffix(".partial")
    if accelerator.is_main_process:
        shutil.rmtree(partial, ignore_errors=True)
    accelerator.wait_for_everyone()
    accelerator.save_state(str(partial))
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        Path(partial, PROGRESS).write_text(json.dumps({"step": step, "run": _run_of(accelerator, config)}) + "\n")
        shutil.rmtree(final, ignore_errors=True)
        os.replace(partial, final)
    accelerator.wait_for_everyone()
    return final


def load_checkpoint(accelerator: Accelerator, config: TrainingConfig) -> int:
    """Restores the run from `config.resume` and returns the number of steps that it has behind it.

    Raises:
        ValueError: if the folder is not a complete checkpoint, or is of another run; the message names the differences.
    """
    progress = Path(config.resume, PROGRESS)
    if not progress.is_file():
        raise ValueError(f"{config.resume} is not a checkpoint of a training run: it has no {PROGRESS}")
    try:
        state = json.loads(progress.read_text())
        then, now = state["run"], json.loads(json.dumps(_run_of(accelerator, config)))
        changed = [f"{key} was {then.get(key)}, is {value}" for key, value in now.items() if then.get(key) != value]
        if not changed:
            accelerator.load_state(config.resume)
            return state["step"]
    except (OSError, RuntimeError, ValueError, KeyError, EOFError, UnpicklingError, SafetensorError) as error:
        raise ValueError(f"the checkpoint {config.resume} cannot be read: {error}") from error
    raise ValueError(f"the checkpoint {config.resume} is of another run: {'; '.join(changed)}")


def _run_of(accelerator: Accelerator, config: TrainingConfig) -> dict:
    """What must be the same for a resumed run to take the same steps."""
    free = {"output_dir", "resume", "num_workers", "eval_steps", "checkpoint_steps", "log_steps"}
    run = {name: value for name, value in asdict(config).items() if name not in free}
    return {**run, "processes": accelerator.num_processes}
