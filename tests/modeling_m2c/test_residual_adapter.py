"""The residual low-rank adapters act after their block, on every position, and can be switched off."""

import pytest
import torch
from transformers import AutoModel

from modeling_m2c import M2CModel


@pytest.fixture
def adapted(make_config) -> M2CModel:
    torch.manual_seed(0)
    config = make_config(injection_layers=[1], residual_adapter_layers=[3, 0], residual_adapter_rank=3)
    model = M2CModel(config).eval()
    with torch.no_grad():
        for parameter in model.residual_adapters.parameters():
            parameter.normal_(std=0.3)
    return model


@pytest.fixture
def query(processor, pixels) -> dict:
    return {**processor.composed_prompt(["is red", "", "is a big star"], return_tensors="pt"), "pixel_values": pixels}


@torch.no_grad()
def test_formula(adapted):
    adapter, x = adapted.residual_adapters["0"], torch.randn(2, 5, 32)
    a, b = adapter.down.weight.T, adapter.up.weight.T
    torch.testing.assert_close(adapter(x), x + (x @ a) @ b)


@torch.no_grad()
def test_switching_off_is_the_model_without_them(adapted, make_config, query):
    plain = M2CModel(make_config(injection_layers=[1])).eval()
    plain.load_state_dict({name: adapted.state_dict()[name] for name in plain.state_dict()})
    with_adapters = adapted.get_composed_features(**query).pooler_output
    without = plain.get_composed_features(**query).pooler_output
    assert (with_adapters - without).abs().max() > 1e-2
    adapted.disable_adapters()
    assert torch.equal(adapted.get_composed_features(**query).pooler_output, without)
    adapted.enable_adapters()
    assert torch.equal(adapted.get_composed_features(**query).pooler_output, with_adapters)


@torch.no_grad()
def test_plain_features_know_nothing_of_them(adapted, query):
    text = {"input_ids": query["input_ids"], "attention_mask": query["attention_mask"]}
    before = adapted.get_text_features(**text).pooler_output
    adapted.disable_adapters()
    assert torch.equal(adapted.get_text_features(**text).pooler_output, before)


@torch.no_grad()
def test_round_trip_and_one_graph(adapted, query, tmp_path):
    expected = adapted.get_composed_features(**query).pooler_output
    adapted.save_pretrained(tmp_path)
    loaded = AutoModel.from_pretrained(tmp_path).eval()
    assert loaded.config.residual_adapter_layers == [0, 3]
    torch.testing.assert_close(loaded.get_composed_features(**query).pooler_output, expected, atol=1e-5, rtol=1e-5)
    compiled = torch.compile(adapted.get_composed_features, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(**query).pooler_output, expected, atol=1e-4, rtol=1e-4)


def test_a_model_without_adapters_says_so(model):
    for switch in (model.disable_adapters, model.enable_adapters, model.merge_adapter):
        with pytest.raises(ValueError, match="No adapter"):
            switch()
