"""Hashes of what decides a feature, so that a stored one is found again by what made it."""

import hashlib
import json

import torch

from modeling_m2c import M2CModel
from processing_m2c import M2CProcessor


WRITERS = ("transformers_version", "processor_class", "auto_map", "architectures", "_name_or_path")


def image_side_key(model: M2CModel, processor: M2CProcessor) -> str:
    """A hash of all that decides the features of an image: vision tower, projection, their precision, preprocessing."""
    preprocessing = {"target_pad": processor.target_pad, **processor.image_processor.to_dict()}
    settings = [_settings_of(preprocessing), _settings_of(model.config.vision_config.to_dict())]
    return _hash(model, ("vision_model.", "visual_projection."), settings)


def text_side_key(model: M2CModel, processor: M2CProcessor) -> str:
    """A hash of all that decides CLIP's features of a text: text tower, projection, their precision, tokenizer."""
    tokenizer = json.loads(processor.tokenizer.backend_tokenizer.to_str())
    # How it was called last.
    del tokenizer["truncation"], tokenizer["padding"]
    settings = [tokenizer, processor.tokenizer.model_max_length, _settings_of(model.config.text_config.to_dict())]
    return _hash(model, ("text_model.", "text_projection."), settings)


def reference_key(model: M2CModel) -> str:
    """A hash of all that decides a reference encoding, given image tokens: token mapper and injection."""
    settings = [model.config.mapper_hidden_act, model.config.injection_grid_size]
    return _hash(model, ("token_mapper.", "semantic_injection."), settings)


def _settings_of(saved: dict) -> dict:
    """Without what says only which release and which classes wrote them."""
    return {name: value for name, value in saved.items() if name not in WRITERS}


def _hash(model: M2CModel, prefixes: tuple[str, ...], settings: list) -> str:
    """SHA-256 of the weights whose names begin so, and of settings."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        if name.startswith(prefixes):
            digest.update(f"{name} {tensor.dtype}".encode())
            digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy())
    digest.update(json.dumps(settings, sort_keys=True, default=str).encode())
    return digest.hexdigest()
