"""Checkpoints of a run: what is trained, the optimiser, the schedule and every random state."""

import json
import os
import shutil
from pathlib import Path

import torch
from accelerate import Accelerator
from safetensors.torch import load_file, save_file
from torch import nn


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


def save_checkpoint(accelerator: Accelerator, output_dir: Path, step: int) -> Path:
    """Writes `output_dir/checkpoints/step_<step>`; it appears under this name only when it is complete."""
    final = output_dir / "checkpoints" / f"step_{step:06d}"
    partial = final.with_suffix(".partial")
    if accelerator.is_main_process:
        shutil.rmtree(partial, ignore_errors=True)
        shutil.rmtree(final, ignore_errors=True)
    accelerator.wait_for_everyone()
    accelerator.save_state(str(partial))
    if accelerator.is_main_process:
        Path(partial, PROGRESS).write_text(json.dumps({"step": step}) + "\n")
        os.replace(partial, final)
    accelerator.wait_for_everyone()
    return final


def load_checkpoint(accelerator: Accelerator, checkpoint: str) -> int:
    """Restores a run and returns the number of steps that it has behind it.

    Raises:
        ValueError: if the folder is not a complete checkpoint.
    """
    progress = Path(checkpoint, PROGRESS)
    if not progress.is_file():
        raise ValueError(f"{checkpoint} is not a checkpoint of a training run: it has no {PROGRESS}")
    accelerator.load_state(checkpoint)
    return json.loads(progress.read_text())["step"]
