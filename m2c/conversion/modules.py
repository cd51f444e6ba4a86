"""The modules that the authors of M2C, Pic2Word, SEARLE and LinCIR add to CLIP, in the key names of their own code."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from .checkpoint import Tensors
from .layers import attention, linear


# What the authors' code takes where the checkpoint does not say: the text blocks (0-based) of injections and adapters.
INJECTION_LAYERS = (3, 7, 9, 11)
RESIDUAL_ADAPTER_LAYERS = (1, 3, 5, 7, 9, 11)


@dataclass(frozen=True)
class Widths:
    """What the CLIP underneath decides: the width of its image embeddings and that of its text tower."""

    projection: int
    text: int


def convert_relu_mapper(tensors: Tensors, widths: Widths, layers: str) -> tuple[dict, dict[str, torch.Tensor]]:
    """The token mapper of M2C and Pic2Word.

    Args:
        tensors: the part of the checkpoint.
        widths: of the CLIP that it belongs to.
        layers: what stands before the number of a hidden layer: `"layers."` in Pic2Word, `"layers.layers."` in M2C.

    Returns:
        Fields of an [`~modeling_m2c.M2CConfig`], and weights of the model.
    """
    return _mapper(tensors, widths, (f"{layers}0.0", f"{layers}1.0", "fc_out"), {"mapper_hidden_act": "relu"})


def convert_gelu_mapper(tensors: Tensors, widths: Widths) -> tuple[dict, dict[str, torch.Tensor]]:
    """The token mapper of SEARLE and LinCIR. Returns what `convert_relu_mapper` returns."""
    fields = {"mapper_hidden_act": "gelu", "mapper_dropout": 0.5}
    return _mapper(tensors, widths, ("layers.0", "layers.3", "layers.6"), fields)


def _mapper(
    tensors: Tensors, widths: Widths, names: tuple[str, str, str], fields: dict
) -> tuple[dict, dict[str, torch.Tensor]]:
    hidden_size, _ = tensors.shape(f"{names[0]}.weight", 2)
    weights = {
        **linear(tensors, names[0], "token_mapper.fc1", widths.projection, hidden_size),
        **linear(tensors, names[1], "token_mapper.fc2", hidden_size, hidden_size),
        **linear(tensors, names[2], "token_mapper.fc_out", hidden_size, widths.text),
    }
    return {**fields, "mapper_hidden_size": hidden_size, "injection_layers": []}, weights


def convert_injection(tensors: Tensors, widths: Widths, layers: Sequence[int] | None) -> tuple[dict, dict[str, torch.Tensor]]:
    """The visual semantic injection of M2C. Returns what `convert_relu_mapper` returns.

    Args:
        tensors: the part of the checkpoint.
        widths: of the CLIP that it belongs to.
        layers: the text blocks of the injections, if the checkpoint says.
    """
    count = tensors.count("adapters.")
    layers = _layers("va_layers", layers, count, INJECTION_LAYERS)
    weights = linear(tensors, "fc_out_hidden", "semantic_injection.projection", widths.projection, widths.text)
    if not layers:
        return {"injection_layers": []}, {}
    width, _ = tensors.shape("adapters.0.hid_1.layers.0.0.weight", 2)
    depth = tensors.count("adapters.0.ca.layers.")
    for index, layer in enumerate(layers):
        weights |= _injection_block(
            tensors, f"adapters.{index}.", f"semantic_injection.blocks.{layer}.", widths.text, width, depth
        )
    return {"injection_layers": layers, "injection_hidden_size": width, "injection_num_layers": depth}, weights


def _injection_block(tensors: Tensors, old: str, new: str, hidden_size: int, width: int, depth: int) -> dict[str, torch.Tensor]:
    weights = {f"{new}conv.weight": tensors.take(f"{old}conv.0.weight", hidden_size, hidden_size, 3, 3)}
    for name in ("weight", "bias", "running_mean", "running_var"):
        weights[f"{new}norm.{name}"] = tensors.take(f"{old}conv.1.{name}", hidden_size)
    weights[f"{new}norm.num_batches_tracked"] = tensors.take_count(f"{old}conv.1.num_batches_tracked")
    for source, target in (("hid_1", "pseudo_word_mlp"), ("hid_2", "patch_mlp"), ("hid_3", "end_of_text_mlp")):
        weights |= _mlp(tensors, f"{old}{source}", f"{new}{target}", hidden_size, width)
    for index in range(depth):
        source, target = f"{old}ca.layers.{index}.", f"{new}layers.{index}"
        weights |= attention(tensors, f"{source}multihead_attn", target, width)
        weights |= linear(tensors, f"{source}linear1", f"{target}.fc1", width, width)
        weights |= linear(tensors, f"{source}linear2", f"{target}.fc2", width, width)
        for name in ("weight", "bias"):
            weights[f"{target}.layer_norm.{name}"] = tensors.take(f"{source}norm2.{name}", width)
    return weights | _mlp(tensors, f"{old}rehid", f"{new}out_mlp", width, hidden_size)


def _mlp(tensors: Tensors, old: str, new: str, in_features: int, out_features: int) -> dict[str, torch.Tensor]:
    return {
        **linear(tensors, f"{old}.layers.0.0", f"{new}.fc1", in_features, out_features),
        **linear(tensors, f"{old}.layers.1.0", f"{new}.fc2", out_features, out_features),
    }


def convert_residual_adapters(
    tensors: Tensors, widths: Widths, layers: Sequence[int] | None
) -> tuple[dict, dict[str, torch.Tensor]]:
    """The residual low-rank adapters of M2C's stage 2. Arguments and result are those of `convert_injection`."""
    count = tensors.count("lora_layers.")
    layers = _layers("ca_layers", layers, count, RESIDUAL_ADAPTER_LAYERS)
    if not layers:
        return {}, {}
    _, rank = tensors.shape("lora_layers.0.A", 2)
    weights = {}
    for index, layer in enumerate(layers):
        # x A B, where a linear layer computes x W^T.
        weights[f"residual_adapters.{layer}.down.weight"] = tensors.take(f"lora_layers.{index}.A", widths.text, rank).T
        weights[f"residual_adapters.{layer}.up.weight"] = tensors.take(f"lora_layers.{index}.B", rank, widths.text).T
    return {"residual_adapter_layers": layers, "residual_adapter_rank": rank}, weights


def _layers(argument: str, recorded: Sequence[int] | None, count: int, default: tuple[int, ...]) -> list[int]:
    """The text blocks of `count` modules. Raises `ValueError` if the checkpoint names other blocks, or not as many."""
    if recorded is None:
        layers, origin = list(default), "the default, as args do not say"
    else:
        layers, origin = recorded, f"args.{argument}"
    if not isinstance(layers, (list, tuple)) or not all(type(layer) is int for layer in layers):
        raise ValueError(f"args.{argument} should list text blocks as whole numbers; it is {layers!r}")
    if len(layers) != count or len(set(layers)) != count:
        raise ValueError(f"the checkpoint has {count} modules for the text blocks {list(layers)} ({origin})")
    return list(layers)
