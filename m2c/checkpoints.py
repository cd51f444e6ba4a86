"""Loads a CLIP as an M2C model with its processor, and writes retrievers that anyone can load."""

import json
from pathlib import Path

import torch
from safetensors import SafetensorError
from transformers import AutoConfig, AutoImageProcessor, AutoTokenizer, CLIPConfig
from transformers.utils import logging as transformers_logging

from m2c.data import scenes
from modeling_m2c import M2CConfig, M2CModel
from processing_m2c import M2CProcessor


def resolve(name: str) -> str:
    """`"scenes"` is the CLIP that ships with this package; any other name is a folder or a repository of the Hub."""
    return str(scenes.CLIP_PATH) if name == "scenes" else name


def load_model(name: str, **config_overrides) -> M2CModel:
    """An M2C model in float32, from an M2C checkpoint or from a plain CLIP, to which untrained M2C modules are added.

    Args:
        name: see [`resolve`].
        config_overrides: fields of [`M2CConfig`] for a plain CLIP; the configuration of an M2C checkpoint is its own.

    Raises:
        ValueError: if the checkpoint is neither, or cannot be read.
    """
    path = resolve(name)
    try:
        config = AutoConfig.from_pretrained(path)
        if isinstance(config, M2CConfig):
            return M2CModel.from_pretrained(path, dtype=torch.float32)
        if not isinstance(config, CLIPConfig):
            raise ValueError(f"it is a {config.model_type!r} model, not a CLIP")
        config = M2CConfig(**{**config.to_dict(), "model_type": "m2c", **config_overrides})
        return _without_load_report(M2CModel.from_pretrained, path, config=config, dtype=torch.float32)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise ValueError(f"cannot load a CLIP from {name!r}: {error}") from error


def _without_load_report(load, *args, **kwargs) -> M2CModel:
    # transformers lists every new weight as missing; that they are new is the point here.
    verbosity = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    try:
        return load(*args, **kwargs)
    finally:
        transformers_logging.set_verbosity(verbosity)


def load_processor(name: str, **arguments) -> M2CProcessor:
    """The processor of an M2C checkpoint, or one made from the image processor and tokenizer of a plain CLIP."""
    path = resolve(name)
    if isinstance(AutoConfig.from_pretrained(path), M2CConfig):
        return M2CProcessor.from_pretrained(path, **arguments)
    return M2CProcessor(AutoImageProcessor.from_pretrained(path), AutoTokenizer.from_pretrained(path), **arguments)


def save_retriever(model: M2CModel, processor: M2CProcessor, directory: str | Path) -> None:
    """Writes weights, adapter, processor and code: a folder that `AutoModel.from_pretrained` loads.

    The weights are those of the model without its adapters; an adapter, if there is one, lies beside them, as
    [`~transformers.PreTrainedModel.from_pretrained`] expects it. Weights that half precision holds exactly, as those of most
    published CLIPs, are stored in it; nothing is rounded.
    """
    directory = Path(directory)
    model.config.has_composing_adapter = model._hf_peft_config_loaded
    base_weights = {
        name.replace(".base_layer.", "."): _narrow(tensor)
        for name, tensor in model.state_dict().items()
        if "lora_" not in name and not name.startswith("composing_encoder.")
    }
    with torch.device("meta"):
        skeleton = type(model)(model.config)
    skeleton.save_pretrained(directory, state_dict=base_weights)
    if model._hf_peft_config_loaded:
        model.save_pretrained(directory)
        _forget_base_path(directory / "adapter_config.json")
    processor.save_pretrained(directory)


def _narrow(tensor: torch.Tensor) -> torch.Tensor:
    half = tensor.half()
    return half if tensor.dtype == torch.float32 and torch.equal(half.float(), tensor) else tensor


def _forget_base_path(adapter_config: Path) -> None:
    # PEFT records the folder that the base was loaded from: a path of this machine, and here the base is beside it.
    content = json.loads(adapter_config.read_text())
    content["base_model_name_or_path"] = None
    adapter_config.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n")
