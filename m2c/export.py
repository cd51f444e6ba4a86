"""ONNX: the three kinds of features for runtimes without torch."""

import logging
import warnings
from pathlib import Path

import torch
from torch import nn

from modeling_m2c import M2CModel
from processing_m2c import M2CProcessor


class _Features(nn.Module):
    """One method of the model as a module: tensors in the order of its arguments, features out."""

    def __init__(self, model: M2CModel, method: str):
        super().__init__()
        self.model = model
        self.method = method

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        return getattr(self.model, self.method)(*inputs).pooler_output


def export_onnx(model: M2CModel, processor: M2CProcessor, directory: str | Path) -> list[Path]:
    """Writes `image_features.onnx`, `text_features.onnx` and `composed_features.onnx`, and the processor beside them.

    The inputs of each are those that [`M2CProcessor`] returns, by the same names; the output is `features` of shape
    `(batch_size, projection_dim)`, un-normalised. Batch size and prompt length are free, the image size is the checkpoint's.
    An adapter that is active is part of the graph.

    Args:
        model: in eval mode and float32.
        processor: its processor.
        directory: where to; made if it does not exist.

    Raises:
        ImportError: if `onnx` or `onnxscript` is missing.
        ValueError: if the model is in training mode, or not in float32.
    """
    if model.training or model.dtype != torch.float32:
        raise ValueError(f"export a model in eval mode and float32, not {model.dtype}{' in training mode' * model.training}")
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    size, context = model.config.vision_config.image_size, model.config.text_config.max_position_embeddings
    # Two of each: a dimension of one would be taken for a constant.
    images = torch.zeros(2, model.config.vision_config.num_channels, size, size)
    prompts = torch.zeros(2, min(8, context), dtype=torch.long)
    position, mask = torch.ones(2, dtype=torch.long), torch.ones_like(prompts)
    batch, length = torch.export.Dim("batch"), torch.export.Dim("length", max=context)
    free = {
        "pixel_values": {0: batch},
        "input_ids": {0: batch, 1: length},
        "attention_mask": {0: batch, 1: length},
        "pseudo_word_position": {0: batch},
    }
    composed = {"input_ids": prompts, "pixel_values": images, "pseudo_word_position": position, "attention_mask": mask}
    inputs = {
        "image": {"pixel_values": images},
        "text": {"input_ids": prompts, "attention_mask": mask},
        "composed": composed,
    }
    paths = []
    for kind, arguments in inputs.items():
        paths.append(directory / f"{kind}_features.onnx")
        _export(_Features(model, f"get_{kind}_features").eval(), arguments, free, paths[-1])
    processor.save_pretrained(directory)
    return paths


def _export(module: nn.Module, inputs: dict[str, torch.Tensor], free: dict[str, dict], path: Path) -> None:
    exporter = logging.getLogger("torch.onnx")
    level = exporter.level
    exporter.setLevel(logging.ERROR)  # that torchvision is missing is as it should be
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")  # about torch's own insides
            program = torch.onnx.export(
                module,
                tuple(inputs.values()),
                input_names=list(inputs),
                output_names=["features"],
                dynamic_shapes=(tuple(free[name] for name in inputs),),
                dynamo=True,
                verbose=False,
            )
    finally:
        exporter.setLevel(level)
    program.save(str(path))
