"""The model of a run as it is before the first step, and the task around it."""

import torch

from m2c.checkpoints import is_m2c, load_model, load_processor
from m2c.training.config import TrainingConfig
from modeling_m2c import M2CModel
from processing_m2c import M2CProcessor

from .adapters import add_composing_adapter
from .stages import ComposingTask, MappingTask
from .text_only import TextOnlyTask, lincir_mapper


def build_task(
    config: TrainingConfig, device: torch.device
) -> tuple[MappingTask | ComposingTask | TextOnlyTask, M2CModel, M2CProcessor]:
    """What a stage trains, on its device, with the model in it and the processor. New weights depend on torch's random state.

    Raises:
        ValueError: if the checkpoint cannot be read, or is not one to start this stage from.
    """
    model, processor = build_model(config)
    task = _task_of(config)(model, processor.mapping_prompt(1, return_tensors="pt"), config)
    model.to(device).eval()
    if device.type == "cpu":
        # SDPA's backward pass is slow there.
        model.set_attn_implementation("eager")
    return task, model, processor


def _task_of(config: TrainingConfig) -> type[MappingTask | ComposingTask]:
    if config.objective == "text_only":
        return TextOnlyTask
    return MappingTask if config.stage == 1 else ComposingTask


def build_model(config: TrainingConfig) -> tuple[M2CModel, M2CProcessor]:
    """The model as it is before the first step: stage 1 adds new modules to a CLIP, stage 2 new adapters to stage 1."""
    if config.stage == 1:
        is_text_only = config.objective == "text_only"
        model = load_model(
            config.model,
            injection_layers=[] if config.mapper_only else config.injection_layers,
            **(lincir_mapper(config) if is_text_only else {"mapper_hidden_size": config.mapper_hidden_size}),
            injection_hidden_size=config.injection_hidden_size,
            injection_grid_size=config.patch_grid,
        )
    else:
        if not is_m2c(config.model):
            raise ValueError(f"stage 2 starts from what stage 1 wrote; {config.model!r} is a plain CLIP. Train --stage 1 first")
        model = load_model(config.model)
        add_composing_adapter(model, config)
    return model, load_processor(config.model)
