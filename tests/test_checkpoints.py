"""Round trips, in fresh processes, with and without the package."""

import json
import subprocess
import sys
import textwrap

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from transformers import AutoModel, AutoProcessor, CLIPModel

from m2c.checkpoints import load_model, load_processor, save_retriever
from m2c.training import TrainingConfig
from m2c.training.adapters import add_composing_adapter
from modeling_m2c import M2CModel


@pytest.fixture
def stage2(model) -> M2CModel:
    """A model with an adapter that does something."""
    add_composing_adapter(model, TrainingConfig(stage=2, lora_rank=4))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.3)
    return model.eval()


@torch.no_grad()
def features(model, processor) -> torch.Tensor:
    images = [Image.new("RGB", (50, 40), color) for color in ("red", "blue")]
    return model.get_composed_features(**processor(images=images, text=["is big", ""], return_tensors="pt")).pooler_output


FRESH = """
    import sys
    sys.path = [entry for entry in sys.path if entry != ""]
    {preamble}
    import torch
    from PIL import Image
    from safetensors.torch import save_file
    from transformers import AutoModel, AutoProcessor
    model = AutoModel.from_pretrained({path!r}{flag})
    processor = AutoProcessor.from_pretrained({path!r}{flag})
    images = [Image.new("RGB", (50, 40), color) for color in ("red", "blue")]
    with torch.no_grad():
        inputs = processor(images=images, text=["is big", ""], return_tensors="pt")
        composed = model.get_composed_features(**inputs).pooler_output
        text = model.get_text_features(**processor(text="a red circle", return_tensors="pt")).pooler_output
    save_file({{"composed": composed, "text": text}}, {out!r})
    print(type(model).__module__)
"""
WITHOUT_PACKAGE = """
    class Blocker:
        def find_spec(self, name, *_):
            if name.split(".")[0] in ("m2c", "modeling_m2c", "processing_m2c", "hub_cards"):
                raise ModuleNotFoundError(name)
    sys.meta_path.insert(0, Blocker())
"""


@pytest.mark.parametrize("package", [False, True])
def test_a_fresh_process_gives_the_same_features(stage2, processor, tmp_path, package):
    path, out = tmp_path / "repo", tmp_path / "features.safetensors"
    save_retriever(stage2, processor, path)
    path = path.rename(tmp_path / "moved")  # no path of this machine may be needed
    preamble, flag = ("import m2c", "") if package else (WITHOUT_PACKAGE, ", trust_remote_code=True")
    code = textwrap.dedent(FRESH).format(preamble=textwrap.dedent(preamble), path=str(path), flag=flag, out=str(out))
    environment = {"PATH": "", "HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip().startswith("modeling_m2c" if package else "transformers_modules")
    loaded = load_file(out)
    torch.testing.assert_close(loaded["composed"], features(stage2, processor), atol=1e-5, rtol=1e-5)
    with torch.no_grad():
        text = stage2.get_text_features(**processor(text="a red circle", return_tensors="pt")).pooler_output
    torch.testing.assert_close(loaded["text"], text, atol=1e-5, rtol=1e-5)


def test_the_adapter_acts_on_composed_queries_only(stage2, processor, clip, tmp_path):
    """Text and image features stay CLIP's to the bit, also after a round trip."""
    # Published CLIPs come from half precision. Where weights do not, the loaded ones may lie unaligned in memory, and on some
    # CPUs a sum is then taken in another order.
    stage2.load_state_dict({name: tensor.half().float() for name, tensor in clip.state_dict().items()}, strict=False)
    clip.load_state_dict({name: stage2.state_dict()[name] for name in clip.state_dict()})
    save_retriever(stage2, processor, tmp_path)
    loaded = AutoModel.from_pretrained(tmp_path)
    text = processor(text=["a red circle", "a photo of a big star"], return_tensors="pt")
    pixels = processor(images=Image.effect_noise((40, 40), 80), return_tensors="pt").pixel_values
    with torch.no_grad():
        for model in (stage2, loaded):
            assert torch.equal(model.get_text_features(**text).pooler_output, clip.get_text_features(**text).pooler_output)
            assert torch.equal(model.get_image_features(pixels).pooler_output, clip.get_image_features(pixels).pooler_output)
    with_adapter = features(loaded, processor)
    assert torch.equal(with_adapter, features(stage2, processor))
    loaded.disable_adapters()
    assert (features(loaded, processor) - with_adapter).abs().max() > 1e-2


def test_an_adapter_that_was_not_loaded_is_missed(stage2, processor, tmp_path, monkeypatch):
    """Without peft transformers loads the base alone and says nothing."""
    save_retriever(stage2, processor, tmp_path)
    monkeypatch.setattr("transformers.integrations.peft.is_peft_available", lambda: False)
    model = AutoModel.from_pretrained(tmp_path)
    with pytest.raises(RuntimeError, match="pip install peft"):
        features(model, processor)
    model.config.has_composing_adapter = False
    stage2.disable_adapters()
    torch.testing.assert_close(features(model, processor), features(stage2, processor), atol=1e-5, rtol=1e-5)


def test_the_folder(stage2, processor, tmp_path):
    save_retriever(stage2, processor, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {
        "adapter_config.json",
        "adapter_model.safetensors",
        "config.json",
        "configuration_m2c.py",
        "images.py",
        "model.safetensors",
        "modeling_m2c.py",
        "processing_m2c.py",
        "processor_config.json",
        "prompts.py",
        "token_mapper.py",
        "tokenizer.json",
        "tokenizer_config.json",
    }
    weights = load_file(tmp_path / "model.safetensors")
    assert not [name for name in weights if name.startswith("composing_encoder") or "lora" in name]
    for path in tmp_path.glob("*.json"):
        assert str(tmp_path.parent) not in path.read_text()
    assert json.loads((tmp_path / "adapter_config.json").read_text())["base_model_name_or_path"] is None


def test_an_untied_composing_encoder_is_kept(make_config, processor, tmp_path):
    model = randomised_untied(make_config)
    save_retriever(model, processor, tmp_path)
    torch.testing.assert_close(features(load_model(str(tmp_path)), processor), features(model, processor))


def randomised_untied(make_config) -> M2CModel:
    torch.manual_seed(3)
    model = M2CModel(make_config(tie_word_embeddings=False)).eval()
    assert not torch.equal(
        *(encoder.layers[0].mlp.fc1.weight for encoder in (model.composing_encoder, model.text_model.encoder))
    )
    return model


def test_a_clip_that_ties_nothing_still_shares_its_encoder(clip, clip_path):
    config = json.loads((clip_path / "config.json").read_text())
    (clip_path / "config.json").write_text(json.dumps({**config, "tie_word_embeddings": False}))
    model = load_model(str(clip_path))
    weight = clip.text_model.encoder.layers[0].mlp.fc1.weight
    assert torch.equal(model.composing_encoder.layers[0].mlp.fc1.weight, weight)


def test_stage_1_loads_as_the_clip_that_it_is(model, processor, clip, tmp_path):
    save_retriever(model, processor, tmp_path)
    plain = CLIPModel.from_pretrained(tmp_path, config=clip.config)
    for name, tensor in plain.state_dict().items():
        assert torch.equal(tensor, model.state_dict()[name]), name


def test_load_model_from_clip_and_from_m2c(clip_path, processor, tmp_path):
    model = load_model(str(clip_path), injection_layers=[1], mapper_hidden_size=8)
    assert model.config.injection_layers == [1] and model.config.mapper_hidden_size == 8 and model.dtype == torch.float32
    save_retriever(model, load_processor(str(clip_path), target_pad=1.25), tmp_path)
    again = load_model(str(tmp_path))
    assert again.config.injection_layers == [1]
    for name, tensor in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor), name
    assert AutoProcessor.from_pretrained(tmp_path).target_pad == load_processor(str(tmp_path)).target_pad == 1.25


@pytest.mark.parametrize("content", [None, "{}", '{"model_type": "bert"}'])
def test_what_is_not_a_clip_is_named(tmp_path, content):
    path = tmp_path / "not-a-clip"
    path.mkdir()
    if content:
        (path / "config.json").write_text(content)
    with pytest.raises(ValueError, match=r"cannot load a CLIP from .*not-a-clip"):
        load_model(str(path))


def test_a_truncated_checkpoint_is_named(clip_path):
    weights = clip_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(ValueError, match="cannot load a CLIP from"):
        load_model(str(clip_path))
