"""Loads a CLIP as an M2C model with its processor, and writes retrievers that anyone can load."""

import hashlib
import json
import os
from pathlib import Path

import torch
from huggingface_hub.errors import HTTPError
from safetensors import SafetensorError
from transformers import AutoConfig, AutoImageProcessor, AutoTokenizer, BaseImageProcessor, CLIPConfig
from transformers.utils import find_adapter_config_file
from transformers.utils import logging as transformers_logging

from m2c.companion_files import announce_pipeline, write_companion_files
from m2c.data import scenes
from modeling_m2c import M2CConfig, M2CModel
from processing_m2c import M2CProcessor


def resolve(name: str) -> str:
    """`"scenes"` is the CLIP that ships with this package; any other name is a folder or a repository of the Hub."""
    return str(scenes.CLIP_PATH) if name == "scenes" else name


def public_name(name: str) -> str:
    """A repository's name as it is; of a local folder the last part, as where it lies is nobody's business."""
    return Path(name).resolve().name if os.path.exists(name) else name


def is_m2c(name: str) -> bool:
    """Whether the checkpoint is one of M2C, and not a plain CLIP. Raises `ValueError` if it is neither."""
    return isinstance(read_config(name), M2CConfig)


def read_config(name: str) -> CLIPConfig:
    """The configuration of a checkpoint, which of M2C is an [`M2CConfig`]. Raises `ValueError` if it is no CLIP of any kind."""
    if name.startswith((".", "/", "~")) and not os.path.exists(name):
        raise ValueError(f"cannot load a CLIP from {name!r}: there is no such folder")
    base = _base_of(name)
    title = name if base is None else f"{name}, the adapter of {base}"
    config = _reading(title, AutoConfig.from_pretrained, resolve(base or name))
    if not isinstance(config, CLIPConfig):
        raise ValueError(f"cannot load a CLIP from {title!r}: it is a {config.model_type!r} model")
    return config


def _base_of(name: str) -> str | None:
    """The base that an adapter names; `None` for what is complete in itself."""
    path = resolve(name)
    adapter_config = _reading(name, find_adapter_config_file, path)
    # In a folder transformers takes the base that lies beside the adapter, whatever name that one gives.
    if adapter_config is None or Path(path, "config.json").is_file():
        return None
    return json.loads(Path(adapter_config).read_text(encoding="utf-8")).get("base_model_name_or_path")


def load_model(name: str, **config_overrides) -> M2CModel:
    """An M2C model in float32: from a repository of M2C (an adapter finds its base), or from a plain CLIP, to which untrained
    M2C modules are added.

    Args:
        name: see [`resolve`].
        config_overrides: fields of [`M2CConfig`] for a plain CLIP; `None` leaves a field at its default.

    Raises:
        ValueError: if the checkpoint is neither, cannot be read, or is of M2C with another configuration than asked for.
    """
    path = resolve(name)
    overrides = {field: value for field, value in config_overrides.items() if value is not None}
    if not is_m2c(name):
        plain = CLIPConfig.from_pretrained(path).to_dict()
        config = M2CConfig(**{**plain, "model_type": "m2c", "tie_word_embeddings": True, **overrides})
        return _without_load_report(_reading, name, M2CModel.from_pretrained, path, config=config, dtype=torch.float32)
    model = _reading(name, M2CModel.from_pretrained, path, dtype=torch.float32)
    for field, value in overrides.items():
        if getattr(model.config, field) != value:
            raise ValueError(f"{name!r} is an M2C checkpoint with {field} {getattr(model.config, field)}, not {value}")
    return model


def _reading(name: str, load, *args, **kwargs):
    """Calls `load`; what goes wrong in reading the checkpoint becomes a `ValueError` that names it."""
    try:
        return load(*args, **kwargs)
    except (HTTPError, OSError, ValueError, RuntimeError, SafetensorError) as error:
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
    """The processor of an M2C checkpoint, or one made from the image processor and tokenizer of a plain CLIP.

    Raises:
        ValueError: if image processor or tokenizer are missing or cannot be read.
    """
    path = resolve(name)
    if is_m2c(name):
        if os.path.isdir(path) and not Path(path, "processor_config.json").exists():
            raise ValueError(f"{name!r} holds a model without a processor; convert it again with --clip and its tokenizer")
        return _reading(name, M2CProcessor.from_pretrained, path, **arguments)
    image_processor = _reading(name, AutoImageProcessor.from_pretrained, path)
    tokenizer = _reading(name, AutoTokenizer.from_pretrained, path)
    # Where the files of a tokenizer are missing, transformers may make one that knows a handful of tokens.
    wanted = CLIPConfig.from_pretrained(path).text_config.vocab_size
    if len(tokenizer) < wanted // 2:
        raise ValueError(f"cannot load a CLIP from {name!r}: its tokenizer knows {len(tokenizer)} tokens, its model {wanted}")
    return M2CProcessor(image_processor, tokenizer, **arguments)


def _fingerprint(weights: dict[str, torch.Tensor]) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(weights.items()):
        digest.update(name.encode())
        digest.update(tensor.contiguous().view(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def save_retriever(model: M2CModel, processor: M2CProcessor | BaseImageProcessor, directory: str | Path) -> None:
    """Writes weights, adapter, processor and code: a folder that `AutoModel.from_pretrained` loads.

    The weights are those of the model without its adapters; the active adapter, if there is one, lies beside them, as
    [`~transformers.PreTrainedModel.from_pretrained`] expects it. Weights that half precision holds exactly, as those of most
    published CLIPs, are stored in it; nothing is rounded. A model without an adapter gets the fingerprint of its weights, which
    adapters that are trained on it record.
    """
    directory = Path(directory)
    model.config.has_composing_adapter = model._hf_peft_config_loaded
    announce_pipeline(model.config)
    weights = _base_weights(model)
    if not model._hf_peft_config_loaded:
        model.config.fingerprint = _fingerprint(weights)
    with torch.device("meta"):
        skeleton = type(model)(model.config)
    skeleton.save_pretrained(directory, state_dict=weights)
    if model._hf_peft_config_loaded:
        model.save_pretrained(directory)
        # PEFT records the folder that the base was loaded from: a path of this machine, and here the base is beside it.
        set_base(directory, None)
    processor.save_pretrained(directory)
    write_companion_files(directory)


def save_adapter(model: M2CModel, processor: M2CProcessor, directory: str | Path, base: str) -> None:
    """Writes the active adapter of stage 2 alone, a few MB. `AutoModel.from_pretrained` finds its base by name.

    Args:
        model: a model with a composing adapter.
        processor: its processor; written too, so that `AutoProcessor` loads from the same folder.
        directory: where to.
        base: the stage-1 model that the adapter was trained on: a repository of the Hub, or a folder, which must stay where it
            is.

    Raises:
        ValueError: if the model has no adapter or several active ones, or `base` is not what it was trained on.
    """
    if not model._hf_peft_config_loaded:
        raise ValueError("the model has no composing adapter to save; train --stage 2 first")
    if len(model.active_adapters()) > 1:
        raise ValueError(f"one adapter is saved at a time; choose with set_adapter among {', '.join(model.active_adapters())}")
    if not is_m2c(base) or AutoConfig.from_pretrained(base).fingerprint != model.config.fingerprint:
        raise ValueError(f"the adapter was trained on {model.config.name_or_path!r}, which {base!r} is not")
    model.save_pretrained(directory)
    set_base(Path(directory), str(Path(base).resolve()) if os.path.isdir(base) else base)
    processor.save_pretrained(directory)


def _base_weights(model: M2CModel) -> dict[str, torch.Tensor]:
    """The state dict without adapters and without what is shared, narrowed where that loses nothing."""
    return {
        name.replace(".base_layer.", "."): _narrow(tensor.detach().cpu())
        for name, tensor in model.state_dict().items()
        if "lora_" not in name and not (model.config.tie_word_embeddings and name.startswith("composing_encoder."))
    }


def _narrow(tensor: torch.Tensor) -> torch.Tensor:
    half = tensor.half()
    return half if tensor.dtype == torch.float32 and torch.equal(half.float(), tensor) else tensor


def set_base(directory: Path, base: str | None) -> None:
    path = directory / "adapter_config.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    content["base_model_name_or_path"] = base
    path.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")
