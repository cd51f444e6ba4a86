"""The CLIPs that people have: their exact sizes, built without weights, and one of them for real."""

import pytest
import torch
from transformers import CLIPConfig, CLIPModel

from modeling_m2c import M2CConfig, M2CModel


# Text: width, heads, blocks. Vision: width, heads, blocks, patch, image. Parameters: of CLIP, as published.
SIZES = {
    "openai/clip-vit-base-patch32": (512, (512, 8, 12), (768, 12, 12, 32, 224), "quick_gelu", 151_277_313),
    "openai/clip-vit-base-patch16": (512, (512, 8, 12), (768, 12, 12, 16, 224), "quick_gelu", 149_620_737),
    "openai/clip-vit-large-patch14": (768, (768, 12, 12), (1024, 16, 24, 14, 224), "quick_gelu", 427_616_513),
    "openai/clip-vit-large-patch14-336": (768, (768, 12, 12), (1024, 16, 24, 14, 336), "quick_gelu", 427_944_193),
    "laion/CLIP-ViT-H-14-laion2B-s32B-b79K": (1024, (1024, 16, 24), (1280, 16, 32, 14, 224), "gelu", 986_109_441),
    "laion/CLIP-ViT-bigG-14-laion2B-39B-b160k": (1280, (1280, 20, 32), (1664, 16, 48, 14, 224), "gelu", 2_539_567_105),
}
BIG_G_INTERMEDIATE = 8192  # not four times the width, as elsewhere
LAYERS = {12: [3, 7, 9], 24: [7, 15, 19], 32: [10, 20, 26]}


def clip_arguments(name: str) -> dict:
    projection, (width, heads, depth), (vision_width, vision_heads, vision_depth, patch, image), act, _ = SIZES[name]
    return {
        "projection_dim": projection,
        "text_config": {
            "hidden_size": width,
            "intermediate_size": 4 * width,
            "num_attention_heads": heads,
            "num_hidden_layers": depth,
            "hidden_act": act,
            "projection_dim": projection,
        },
        "vision_config": {
            "hidden_size": vision_width,
            "intermediate_size": BIG_G_INTERMEDIATE if vision_width == 1664 else 4 * vision_width,
            "num_attention_heads": vision_heads,
            "num_hidden_layers": vision_depth,
            "patch_size": patch,
            "image_size": image,
            "hidden_act": act,
            "projection_dim": projection,
        },
    }


def count(module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize("name", SIZES)
def test_sizes(name):
    arguments = clip_arguments(name)
    with torch.device("meta"):
        clip, model = CLIPModel(CLIPConfig(**arguments)), M2CModel(M2CConfig(**arguments))
    assert count(clip) == SIZES[name][-1]
    p, h, depth = model.config.projection_dim, SIZES[name][1][0], SIZES[name][1][2]
    assert model.config.injection_layers == LAYERS[depth]

    def linear(inputs, outputs):
        return (inputs + 1) * outputs

    mapper = linear(p, 512) + linear(512, 512) + linear(512, h)
    attention = 4 * linear(128, 128) + 2 * linear(128, 128) + 2 * 128
    mlps = 3 * (linear(h, 128) + linear(128, 128)) + linear(128, h) + linear(h, h)
    block = 9 * h * h + 2 * h + mlps + 2 * attention
    assert count(model.token_mapper) == mapper
    assert count(model.semantic_injection) == linear(p, h) + 3 * block
    assert count(model) == count(clip) + mapper + linear(p, h) + 3 * block
    theirs = {name: tensor.shape for name, tensor in clip.state_dict().items()}
    assert theirs == {name: tensor.shape for name, tensor in model.state_dict().items() if name in theirs}
    assert model.token_mapper.fc_out.weight.shape == (h, 512)
    assert model.semantic_injection.blocks[str(LAYERS[depth][0])].conv.weight.shape == (h, h, 3, 3)


@pytest.mark.parametrize(("size", "millions"), [("large-patch14", 27.8), ("base-patch32", 13.6)])
def test_trainable_parameters_of_the_paper(size, millions):
    """With the injection after the last block, which the published models have."""
    with torch.device("meta"):
        model = M2CModel(M2CConfig(**clip_arguments(f"openai/clip-vit-{size}"), injection_layers=[3, 7, 9, 11]))
    assert round((count(model.token_mapper) + count(model.semantic_injection)) / 1e6, 1) == millions


@torch.no_grad()
def test_base_patch32_runs():
    torch.manual_seed(0)
    model = M2CModel(M2CConfig(**clip_arguments("openai/clip-vit-base-patch32"))).eval()
    clip = CLIPModel(CLIPConfig(**clip_arguments("openai/clip-vit-base-patch32"))).eval()
    clip.load_state_dict({name: model.state_dict()[name] for name in clip.state_dict()})
    pixels = torch.randn(2, 3, 224, 224)
    ids = torch.tensor([[49406, 320, 1125, 539, 265, 49407], [49406, 320, 265, 593, 49407, 49407]])
    composed = model.get_composed_features(ids, pixels, torch.tensor([4, 2])).pooler_output
    assert composed.shape == (2, 512) and composed.isfinite().all()
    assert torch.equal(model.get_image_features(pixels).pooler_output, clip.get_image_features(pixels).pooler_output)
    assert torch.equal(model.get_text_features(ids).pooler_output, clip.get_text_features(ids).pooler_output)
    assert not torch.equal(composed, model.get_composed_features(ids, pixels.flip(0), torch.tensor([4, 2])).pooler_output)
