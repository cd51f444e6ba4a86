import pytest
import torch
from torch.nn.functional import cosine_similarity
from transformers import CLIPModel

from modeling_m2c import M2CConfig, M2CModel, default_injection_layers


@pytest.fixture
def prompts(processor):
    return processor.composed_prompt(["is red", "has a big blue circle at the top left", ""], return_tensors="pt")


@pytest.fixture
def query(prompts, pixels):
    return {**prompts, "pixel_values": pixels}


@torch.no_grad()
def composed(model, **inputs) -> torch.Tensor:
    return model.get_composed_features(**inputs).pooler_output


@torch.no_grad()
def test_a_plain_clip_loads_with_only_the_new_modules_new(clip, clip_path, prompts, pixels):
    model, info = M2CModel.from_pretrained(clip_path, output_loading_info=True)
    assert {key.split(".")[0] for key in info["missing_keys"]} == {"token_mapper", "semantic_injection"}
    assert not info["unexpected_keys"] and not info["mismatched_keys"]
    assert model.config.injection_layers == default_injection_layers(4)
    assert torch.equal(model.get_image_features(pixels).pooler_output, clip.get_image_features(pixels).pooler_output)
    text = (prompts.input_ids, prompts.attention_mask)
    assert torch.equal(model.get_text_features(*text).pooler_output, clip.get_text_features(*text).pooler_output)


def test_default_injection_layers():
    assert default_injection_layers(12) == [3, 7, 9]
    assert default_injection_layers(24) == [7, 15, 19]
    for depth in range(2, 40):
        layers = default_injection_layers(depth)
        assert layers and max(layers) < depth - 1, "an injection after the last block is dead"


@pytest.mark.parametrize(
    "arguments",
    [
        {"injection_layers": [0, 4]},
        {"injection_layers": [-1]},
        {"injection_hidden_size": 18},
        {"injection_grid_size": 0},
        {"injection_grid_size": 3},
        {"injection_grid_size": 8},
        {"residual_adapter_layers": [4]},
    ],
)
def test_config_refuses_what_cannot_be(make_config, arguments):
    with pytest.raises(ValueError, match=next(iter(arguments))):
        make_config(**arguments)


@torch.no_grad()
def test_token_0_is_the_image_embedding(model, pixels):
    tokens = model.get_image_tokens(pixels)
    assert tokens.shape == (3, 17, 24)
    torch.testing.assert_close(tokens[:, 0], model.get_image_features(pixels).pooler_output)


@torch.no_grad()
def test_prompt_without_pseudo_word_is_plain_clip(make_config, prompts, pixels):
    """With the placeholder's own embedding for a pseudo-word, and no injection, the composed path is CLIP's text path."""
    model = M2CModel(make_config(injection_layers=[])).eval()
    reference = model.encode_reference(model.get_image_tokens(pixels))
    placeholder = prompts.input_ids[0, prompts.pseudo_word_position[0]]
    reference.pseudo_word = model.get_input_embeddings()(placeholder).expand(3, -1)
    result = model.compose(reference, **prompts).pooler_output
    assert torch.equal(result, model.get_text_features(prompts.input_ids, prompts.attention_mask).pooler_output)


@torch.no_grad()
def test_a_pseudo_word_at_several_positions(make_config, model, prompts, pixels):
    """Against CLIP with the pseudo-word as the embedding of the token that stands there; also as one graph."""
    plain = M2CModel(make_config(injection_layers=[])).eval()
    tokens = plain.get_image_tokens(pixels)
    reference = plain.encode_reference(tokens[:1].expand(3, -1, -1))
    ids, unused = prompts.input_ids.clone(), prompts.input_ids.max() + 1
    ids[0, 1:3] = ids[1, 2] = unused
    positions = torch.tensor([[2, -1, 1], [2, -1, -1], [-1, -1, -1]])
    result = plain.compose(reference, ids, positions, prompts.attention_mask).pooler_output
    compiled = torch.compile(plain.compose, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(reference, ids, positions, prompts.attention_mask).pooler_output, result)
    torch.testing.assert_close(
        plain.compose(reference, ids, prompts.pseudo_word_position[:, None]).pooler_output,
        plain.compose(reference, ids, prompts.pseudo_word_position).pooler_output,
    )
    plain.get_input_embeddings().weight[unused] = reference.pseudo_word[0]
    expected = plain.get_text_features(ids, prompts.attention_mask).pooler_output
    torch.testing.assert_close(result, expected, atol=1e-5, rtol=1e-4)
    with pytest.raises(ValueError, match="with injection the pseudo-word stands at one position"):
        model.compose(model.encode_reference(tokens), ids, positions)


@torch.no_grad()
def test_compose_against_the_formula(model, query):
    """A plain loop over one sample: pseudo-word in, after each injected block the pseudo-word's state changes."""
    text, tokens = model.text_model, model.get_image_tokens(query["pixel_values"])
    reference = model.encode_reference(tokens)
    expected = []
    for row in range(3):
        length, position = int(query["attention_mask"][row].sum()), int(query["pseudo_word_position"][row])
        hidden = text.embeddings.token_embedding(query["input_ids"][row, :length])
        hidden[position] = model.token_mapper(tokens[row, 0])
        hidden = (hidden + text.embeddings.position_embedding.weight[:length])[None]
        mask = torch.full((length, length), -torch.inf).triu(1)[None, None]
        for index, layer in enumerate(text.encoder.layers):
            hidden = layer(hidden, mask)
            if index in (0, 1, 2):
                block, keys_values = model.semantic_injection.blocks[str(index)], reference.keys_values[index][row : row + 1]
                hidden[:, position] += block(hidden[:, position], hidden[:, -1], keys_values)
        expected.append(model.text_projection(text.final_layer_norm(hidden)[0, -1]))
    torch.testing.assert_close(composed(model, **query), torch.stack(expected), atol=1e-5, rtol=1e-4)


def test_image_and_text_both_matter(model, query):
    features = composed(model, **query)
    other_image = composed(model, **{**query, "pixel_values": query["pixel_values"].flip(0)})
    assert (features - other_image)[0].abs().max() > 1e-2
    assert (features[0] - features[1]).abs().max() > 1e-2


def test_injection_after_the_last_block_is_dead(make_config, query):
    torch.manual_seed(0)
    model = M2CModel(make_config(injection_layers=[1, 3])).eval()
    before = composed(model, **query)
    with torch.no_grad():
        for parameter in model.semantic_injection.blocks["3"].parameters():
            parameter.add_(1.0)
    assert torch.equal(composed(model, **query), before)


def test_batch_order_batch_size_and_padding_change_nothing(model, query, processor):
    features = composed(model, **query)
    order = torch.tensor([2, 0, 1])
    torch.testing.assert_close(
        composed(model, **{key: value[order] for key, value in query.items()}), features[order], atol=1e-5, rtol=1e-5
    )
    for row in range(3):
        length = int(query["attention_mask"][row].sum())
        alone = {key: value[row : row + 1] for key, value in query.items()}
        alone |= {key: alone[key][:, :length] for key in ("input_ids", "attention_mask")}
        torch.testing.assert_close(composed(model, **alone), features[row : row + 1], atol=1e-5, rtol=1e-5)
        del alone["attention_mask"]
        torch.testing.assert_close(composed(model, **alone), features[row : row + 1], atol=1e-5, rtol=1e-5)


def test_forward_is_composed_with_a_pseudo_word_and_clip_without(model, query):
    with torch.no_grad():
        assert torch.equal(model(**query).pooler_output, composed(model, **query))
        plain = {key: query[key] for key in ("input_ids", "attention_mask", "pixel_values")}
        assert torch.equal(model(**plain).logits_per_image, CLIPModel.forward(model, **plain).logits_per_image)


@torch.no_grad()
def test_old_checkpoints_pool_at_the_highest_id(make_config, pixels):
    """Configs with the end-of-text id 2 are older than transformers' fix of it."""
    torch.manual_seed(0)
    model = M2CModel(make_config(eos_token_id=2, injection_layers=[])).eval()
    ids = torch.tensor([[1, 5, 6, 7, 60, 0, 0]])
    reference = model.encode_reference(model.get_image_tokens(pixels[:1]))
    reference.pseudo_word = model.get_input_embeddings()(ids[:, 2])
    result = model.compose(reference, ids, torch.tensor([2])).pooler_output
    assert torch.equal(result, model.get_text_features(ids).pooler_output)


def test_gradients_reach_the_new_modules(model, query):
    model.get_composed_features(**query).pooler_output.square().sum().backward()
    for name, parameter in model.named_parameters():
        if name.startswith(("token_mapper", "semantic_injection")):
            assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


def test_eager_and_sdpa_agree(model, query):
    model.set_attn_implementation("sdpa")
    sdpa = composed(model, **query)
    model.set_attn_implementation("eager")
    torch.testing.assert_close(composed(model, **query), sdpa, atol=1e-5, rtol=1e-5)


def test_activation_checkpointing_keeps_the_gradient(model, query):
    def gradient() -> torch.Tensor:
        model.zero_grad()
        model.get_composed_features(**query).pooler_output.square().sum().backward()
        return model.token_mapper.fc1.weight.grad.clone()

    plain = gradient()
    model.train()
    for module in model.modules():
        if isinstance(module, (torch.nn.Dropout, torch.nn.BatchNorm2d)):
            module.eval()
    model.gradient_checkpointing_enable({"use_reentrant": False})
    assert model.composing_encoder.layers[0].gradient_checkpointing
    torch.testing.assert_close(gradient(), plain)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_low_precision_is_close(model, query, dtype):
    exact = composed(model, **query)
    low = composed(model.to(dtype), **{**query, "pixel_values": query["pixel_values"].to(dtype)})
    assert low.dtype == dtype
    assert cosine_similarity(low.float(), exact).min() > 0.99


def test_other_image_sizes(model, prompts):
    """Position embeddings are interpolated as in CLIP; the grid of patches follows the image, square or not."""
    for height, width in ((32, 32), (48, 32), (32, 64)):
        images = torch.randn(3, 3, height, width, generator=torch.Generator().manual_seed(0))
        features = composed(model, pixel_values=images, interpolate_pos_encoding=True, **prompts)
        assert features.shape == (3, 24)
    with pytest.raises(ValueError, match="do not form a grid"):
        model.encode_reference(model.get_image_tokens(images, interpolate_pos_encoding=True), (3, 3))


@torch.no_grad()
def test_averaged_patches(model, pixels, prompts):
    """Tokens are averaged over squares of patches, once; what follows sees a smaller picture."""
    model.config.injection_grid_size = 2
    tokens = model.get_image_tokens(pixels)
    averaged = model.average_patches(tokens)
    picture = tokens[:, 1:].transpose(1, 2).unflatten(2, (4, 4))
    expected = torch.nn.functional.avg_pool2d(picture, 2).flatten(2).transpose(1, 2)
    torch.testing.assert_close(averaged, torch.cat([tokens[:, :1], expected], dim=1))
    assert model.average_patches(averaged) is averaged
    reference = model.encode_reference(tokens)
    assert reference.keys_values[0].shape == (3, 2, 2, 4, 16)
    for stored, fresh in zip(model.encode_reference(averaged).keys_values, reference.keys_values):
        assert torch.equal(stored, fresh)
    result = composed(model, pixel_values=pixels, **prompts)
    model.config.injection_grid_size = None
    assert torch.equal(result, model.compose(model.encode_reference(averaged), **prompts).pooler_output)
    assert not torch.allclose(result, composed(model, pixel_values=pixels, **prompts), atol=1e-4)


@torch.no_grad()
def test_averaged_patches_of_other_image_sizes(make_config, prompts):
    model = M2CModel(make_config(injection_grid_size=2)).eval()
    images = torch.randn(3, 3, 64, 32, generator=torch.Generator().manual_seed(0))
    tokens = model.get_image_tokens(images, interpolate_pos_encoding=True)
    top_left = tokens[:, [1, 2, 5, 6, 9, 10, 13, 14]].mean(dim=1)
    torch.testing.assert_close(model.average_patches(tokens, (8, 4))[:, 1], top_left)
    assert composed(model, pixel_values=images, interpolate_pos_encoding=True, **prompts).shape == (3, 24)
    with pytest.raises(ValueError, match="32 patches do not form a grid of 5 x 5"):
        model.average_patches(tokens)
    with pytest.raises(ValueError, match="3 x 4 patches cannot be averaged to injection_grid_size 2 x 2"):
        model.average_patches(tokens[:, :13], (3, 4))


@pytest.mark.parametrize("grid_size", [None, 2])
@torch.no_grad()
def test_compiles_as_one_graph(model, query, grid_size):
    """Without inductor, which needs a C compiler: what can break is the tracing."""
    model.config.injection_grid_size = grid_size
    for method, inputs in (
        ("get_composed_features", query),
        ("get_image_features", {"pixel_values": query["pixel_values"]}),
        ("get_text_features", {"input_ids": query["input_ids"], "attention_mask": query["attention_mask"]}),
    ):
        compiled = torch.compile(getattr(model, method), fullgraph=True, backend="aot_eager")
        expected = getattr(model, method)(**inputs).pooler_output
        torch.testing.assert_close(compiled(**inputs).pooler_output, expected, atol=1e-4, rtol=1e-4)


def test_a_config_survives_its_json(make_config, tmp_path):
    config = make_config(injection_layers=[2], mapper_hidden_act="gelu", mapper_dropout=0.5)
    config.save_pretrained(tmp_path)
    loaded = M2CConfig.from_pretrained(tmp_path)
    assert loaded.injection_layers == [2] and loaded.text_config.hidden_size == 32
    assert loaded.to_dict() == {**config.to_dict(), "transformers_version": loaded.to_dict()["transformers_version"]}
