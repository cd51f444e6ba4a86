"""Mapper and injection against plain references, written here from the formulas."""

import torch
from torch import nn
from torch.nn import functional as F

from modeling_m2c import InjectionBlock, TokenMapper, VisualSemanticInjection


def linear(module: nn.Linear, x: torch.Tensor) -> torch.Tensor:
    return x @ module.weight.T + module.bias


def mlp(module, x: torch.Tensor) -> torch.Tensor:
    return F.relu(linear(module.fc2, F.relu(linear(module.fc1, x))))


def test_mapper(model):
    mapper, v = model.token_mapper, torch.randn(5, 24)
    hidden = F.relu(linear(mapper.fc2, F.relu(linear(mapper.fc1, v))))
    torch.testing.assert_close(mapper(v), linear(mapper.fc_out, hidden))
    assert mapper(v).shape == (5, 32)


def test_gelu_mapper(make_config):
    mapper, v = TokenMapper(make_config(mapper_hidden_act="gelu")).eval(), torch.randn(5, 24)
    hidden = F.gelu(linear(mapper.fc2, F.gelu(linear(mapper.fc1, v))))
    torch.testing.assert_close(mapper(v), linear(mapper.fc_out, hidden))


def reference_attention(layer, x, eos, patches, heads):
    """With torch's own multi-head attention, fed with the layer's weights."""
    attention = nn.MultiheadAttention(x.shape[-1], heads, batch_first=True)
    projections = (layer.q_proj, layer.k_proj, layer.v_proj)
    attention.in_proj_weight.data = torch.cat([p.weight for p in projections]).detach()
    attention.in_proj_bias.data = torch.cat([p.bias for p in projections]).detach()
    attention.out_proj.load_state_dict(layer.out_proj.state_dict())
    attended, _ = attention((x + eos)[:, None], patches, patches)
    z = linear(layer.fc2, F.gelu(linear(layer.fc1, attended[:, 0])))
    return F.layer_norm(x + z, x.shape[-1:], layer.layer_norm.weight, layer.layer_norm.bias)


def test_injection_block(model):
    block: InjectionBlock = model.semantic_injection.blocks["1"]
    pseudo_word, eos, patches = torch.randn(3, 32), torch.randn(3, 32), torch.randn(3, 12, 32)

    picture = patches.reshape(3, 3, 4, 32).permute(0, 3, 1, 2)
    picture = F.conv2d(picture, block.conv.weight, padding=1)
    mean, variance = block.norm.running_mean[:, None, None], block.norm.running_var[:, None, None]
    picture = (picture - mean) / (variance + 1e-5).sqrt() * block.norm.weight[:, None, None] + block.norm.bias[:, None, None]
    encoded = mlp(block.patch_mlp, F.relu(picture).permute(0, 2, 3, 1).reshape(3, 12, 32))
    x, steering = mlp(block.pseudo_word_mlp, pseudo_word), mlp(block.end_of_text_mlp, eos)
    for layer in block.layers:
        x = reference_attention(layer, x, steering, encoded, heads=4)
    expected = mlp(block.out_mlp, x)

    result = block(pseudo_word, eos, block.encode_patches(patches, (3, 4)))
    torch.testing.assert_close(result, expected, atol=1e-5, rtol=1e-5)
    assert (result >= 0).all() and result.std() > 0


def test_blocks_share_the_projection_and_nothing_else(model):
    injection: VisualSemanticInjection = model.semantic_injection
    patches = torch.randn(2, 16, 24)
    encoded = injection.encode_patches(patches)
    assert len(encoded) == 3 and encoded[0].shape == (2, 2, 2, 16, 16)
    for block, result in zip(injection.blocks.values(), encoded):
        torch.testing.assert_close(block.encode_patches(linear(injection.projection, patches), (4, 4)), result)
    weights = [block.conv.weight.data_ptr() for block in injection.blocks.values()]
    assert len(set(weights)) == 3


def test_trainable_parameters_are_as_many_as_published(make_config):
    """27.8 M for L/14 with the four published injections, 13.6 M for B/32."""
    for projection, hidden, millions in ((768, 768, 27.8), (512, 512, 13.6)):
        config = make_config(
            projection_dim=projection,
            text_config={"hidden_size": hidden, "num_hidden_layers": 12, "num_attention_heads": 8},
            mapper_hidden_size=512,
            injection_hidden_size=128,
            injection_num_attention_heads=8,
            injection_layers=[3, 7, 9, 11],
        )
        with torch.device("meta"):
            modules = (TokenMapper(config), VisualSemanticInjection(config))
        count = sum(parameter.numel() for module in modules for parameter in module.parameters())
        assert abs(count / 1e6 - millions) < 0.1
