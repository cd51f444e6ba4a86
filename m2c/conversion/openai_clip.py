"""A CLIP in the key names of OpenAI's code, as checkpoints of the M2C and Pic2Word authors carry it."""

import torch

from .checkpoint import Tensors
from .layers import attention, linear


# OpenAI's loader takes heads of this width in every tower.
HEAD_WIDTH = 64


def convert_clip(tensors: Tensors) -> tuple[dict, dict[str, torch.Tensor]]:
    """Takes a CLIP with a vision transformer out of `tensors`.

    Returns:
        The arguments of a [`~transformers.CLIPConfig`], and the state dict of a [`~transformers.CLIPModel`].

    Raises:
        ValueError: if a tensor is missing, misshapen or left over.
    """
    # Numbers that OpenAI's archives keep beside the weights.
    tensors.drop("input_resolution", "context_length", "vocab_size")
    if "visual.layer1.0.conv1.weight" in tensors:
        raise ValueError("the checkpoint's CLIP has a ResNet as its vision tower; only vision transformers are supported")
    text, text_weights = _text_tower(tensors)
    vision, vision_weights = _vision_tower(tensors)
    projection_dim = text["projection_dim"]
    weights = {
        **text_weights,
        **vision_weights,
        "text_projection.weight": tensors.take("text_projection", text["hidden_size"], projection_dim).T,
        "visual_projection.weight": tensors.take("visual.proj", vision["hidden_size"], projection_dim).T,
        "logit_scale": tensors.take("logit_scale"),
    }
    tensors.finish()
    return {"text_config": text, "vision_config": vision, "projection_dim": projection_dim}, weights


def _text_tower(tensors: Tensors) -> tuple[dict, dict[str, torch.Tensor]]:
    vocab_size, width = tensors.shape("token_embedding.weight", 2)
    context_length, _ = tensors.shape("positional_embedding", 2)
    sizes, weights = _blocks(tensors, "transformer.resblocks.", "text_model.encoder.layers.", width)
    weights |= {
        "text_model.embeddings.token_embedding.weight": tensors.take("token_embedding.weight", vocab_size, width),
        "text_model.embeddings.position_embedding.weight": tensors.take("positional_embedding", context_length, width),
        **_layer_norm(tensors, "ln_final", "text_model.final_layer_norm", width),
    }
    config = {
        **sizes,
        "vocab_size": vocab_size,
        "max_position_embeddings": context_length,
        "projection_dim": tensors.shape("text_projection", 2)[1],
        "bos_token_id": vocab_size - 2,
        # transformers' mark of "pool at the highest token id", which is what OpenAI's code does for any vocabulary.
        "eos_token_id": 2,
    }
    return config, weights


def _vision_tower(tensors: Tensors) -> tuple[dict, dict[str, torch.Tensor]]:
    width, channels, patch_size, _ = tensors.shape("visual.conv1.weight", 4)
    positions, _ = tensors.shape("visual.positional_embedding", 2)
    grid = round((positions - 1) ** 0.5)
    if grid**2 != positions - 1:
        raise ValueError(f"visual.positional_embedding has {positions} rows, which is not one more than a square")
    sizes, weights = _blocks(tensors, "visual.transformer.resblocks.", "vision_model.encoder.layers.", width)
    weights |= {
        "vision_model.embeddings.class_embedding": tensors.take("visual.class_embedding", width),
        "vision_model.embeddings.patch_embedding.weight": tensors.take(
            "visual.conv1.weight", width, channels, patch_size, patch_size
        ),
        "vision_model.embeddings.position_embedding.weight": tensors.take("visual.positional_embedding", positions, width),
        # The missing "e" is transformers' own.
        **_layer_norm(tensors, "visual.ln_pre", "vision_model.pre_layrnorm", width),
        **_layer_norm(tensors, "visual.ln_post", "vision_model.post_layernorm", width),
    }
    config = {
        **sizes,
        "patch_size": patch_size,
        "image_size": grid * patch_size,
        "projection_dim": tensors.shape("visual.proj", 2)[1],
    }
    return config, weights


def _blocks(tensors: Tensors, old: str, new: str, width: int) -> tuple[dict, dict[str, torch.Tensor]]:
    """The transformer blocks of one tower: their sizes and their weights."""
    depth = tensors.count(old)
    if width % HEAD_WIDTH:
        raise ValueError(f"{old}* has width {width}, which does not divide into heads of {HEAD_WIDTH}")
    intermediate_size, _ = tensors.shape(f"{old}0.mlp.c_fc.weight", 2)
    weights = {}
    for index in range(depth):
        source, target = f"{old}{index}.", f"{new}{index}."
        weights |= {
            **attention(tensors, f"{source}attn", f"{target}self_attn", width),
            **linear(tensors, f"{source}mlp.c_fc", f"{target}mlp.fc1", width, intermediate_size),
            **linear(tensors, f"{source}mlp.c_proj", f"{target}mlp.fc2", intermediate_size, width),
            **_layer_norm(tensors, f"{source}ln_1", f"{target}layer_norm1", width),
            **_layer_norm(tensors, f"{source}ln_2", f"{target}layer_norm2", width),
        }
    sizes = {
        "hidden_size": width,
        "intermediate_size": intermediate_size,
        "num_hidden_layers": depth,
        "num_attention_heads": width // HEAD_WIDTH,
        "hidden_act": "quick_gelu",
    }
    return sizes, weights


def _layer_norm(tensors: Tensors, old: str, new: str, width: int) -> dict[str, torch.Tensor]:
    return {f"{new}.{name}": tensors.take(f"{old}.{name}", width) for name in ("weight", "bias")}
