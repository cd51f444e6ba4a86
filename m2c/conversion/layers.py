"""Layers that several of the original networks have, by their old and new names."""

import torch

from .checkpoint import Tensors


def linear(tensors: Tensors, old: str, new: str, in_features: int, out_features: int) -> dict[str, torch.Tensor]:
    """Weight and bias. Raises `ValueError` if one is missing or misshapen."""
    return {
        f"{new}.weight": tensors.take(f"{old}.weight", out_features, in_features),
        f"{new}.bias": tensors.take(f"{old}.bias", out_features),
    }


def attention(tensors: Tensors, old: str, new: str, width: int) -> dict[str, torch.Tensor]:
    """Four projections. Torch's own attention keeps those of query, key and value in one matrix. Raises as `linear`."""
    weights = tensors.take(f"{old}.in_proj_weight", 3 * width, width).chunk(3)
    biases = tensors.take(f"{old}.in_proj_bias", 3 * width).chunk(3)
    split = {}
    for name, weight, bias in zip("qkv", weights, biases):
        split |= {f"{new}.{name}_proj.weight": weight, f"{new}.{name}_proj.bias": bias}
    return {**split, **linear(tensors, f"{old}.out_proj", f"{new}.out_proj", width, width)}
