"""What a record says about the model and its preprocessing."""

import hashlib
import os
from pathlib import Path

import torch
from huggingface_hub import try_to_load_from_cache

from m2c.checkpoints import public_name
from modeling_m2c import M2CModel
from processing_m2c import M2CProcessor


def describe_model(name: str, model: M2CModel) -> dict:
    """Name and revision, hashes of the weights as they were loaded, and which adapters act."""
    # As they are without the layers that PEFT wraps around them, so that an adapter changes its own hash only.
    base = {name.replace(".base_layer.", "."): tensor for name, tensor in model.state_dict().items() if "lora_" not in name}
    adapters = [f"residual, after blocks {model.config.residual_adapter_layers}"] if model.residual_adapters else []
    if model._hf_peft_config_loaded:
        adapters += [f"{name}, SHA-256 {_hash(model.get_adapter_state_dict(name))}" for name in model.active_adapters()]
    return {
        "name": public_name(name),
        "base": public_name(model.config.name_or_path),
        "revision": _commit(name),
        "sha256": _hash(base),
        "adapters": adapters,
        "dtype": str(model.dtype).removeprefix("torch."),
        "injection_layers": model.config.injection_layers,
    }


def _commit(name: str) -> str | None:
    """Of a repository the commit that was just loaded, which stands in the cache of the Hub's library; of a folder none."""
    for file in ("config.json", "adapter_config.json"):
        found = None if os.path.isdir(name) else try_to_load_from_cache(name, file)
        if isinstance(found, str):
            return Path(found).parent.name
    return None


def _hash(weights: dict[str, torch.Tensor]) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(weights.items()):
        digest.update(f"{name} {tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def describe_preprocessing(processor: M2CProcessor) -> dict:
    settings = processor.image_processor.to_dict()
    wanted = ("image_processor_type", "size", "crop_size", "resample", "image_mean", "image_std", "do_center_crop")
    return {"target_pad": processor.target_pad, **{name: settings.get(name) for name in wanted}}
