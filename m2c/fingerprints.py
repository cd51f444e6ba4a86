"""Hashes of what decides a feature, so that a stored one is found again by what made it."""

import hashlib
import json

import torch

from modeling_m2c import M2CModel
from processing_m2c import M2CProcessor


def image_side_key(model: M2CModel, processor: M2CProcessor) -> str:
    """A hash of all that decides the features of an image: vision tower, projection, their precision, preprocessing."""
    preprocessing = {"target_pad": processor.target_pad, **processor.image_processor.to_dict()}
    # Which release wrote the settings changes nothing in a picture.
    settings = {name: value for name, value in preprocessing.items() if name not in ("processor_class", "auto_map")}
    return _hash(model, ("vision_model.", "visual_projection."), [settings, model.config.vision_config.to_dict()])


def text_side_key(model: M2CModel, processor: M2CProcessor) -> str:
    """A hash of all that decides CLIP's features of a text: text tower, projection, their precision, tokenizer."""
    tokenizer = json.loads(processor.tokenizer.backend_tokenizer.to_str())
    # How it was called last.
    del tokenizer["truncation"], tokenizer["padding"]
    settings = [tokenizer, processor.tokenizer.model_max_length, model.config.text_config.to_dict()]
    return _hash(model, ("text_model.", "text_projection."), settings)


def reference_key(model: M2CModel) -> str:
    """A hash of all that decides a reference encoding, given image tokens: token mapper and injection."""
    settings = [model.config.mapper_hidden_act, model.config.injection_grid_size]
    return _hash(model, ("token_mapper.", "semantic_injection."), settings)


def _hash(model: M2CModel, prefixes: tuple[str, ...], settings: list) -> str:
    """SHA-256 of the weights whose names begin so, and of settings."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        if name.startswith(prefixes):
            digest.update(f"{name} {tensor.dtype}".encode())
            digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy())
    digest.update(json.dumps(settings, sort_keys=True, default=str).encode())
    return digest.hexdigest()
