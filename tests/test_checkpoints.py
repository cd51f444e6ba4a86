"""Round trips, in fresh processes, with and without the package."""

import json
import subprocess
import sys
import textwrap

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import AutoModel, AutoProcessor, CLIPModel

from m2c.checkpoints import is_m2c, load_model, load_processor, save_adapter, save_retriever, set_base
from m2c.training import TrainingConfig
from m2c.training.tasks.adapters import add_composing_adapter
from modeling_m2c import M2CModel


def add_adapter(model, base: str, seed: int = 0) -> M2CModel:
    """An adapter as stage 2 makes it, with weights that do something."""
    add_composing_adapter(model, TrainingConfig(stage=2, model=base, lora_rank=4))
    torch.manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.3)
    return model.eval()


@pytest.fixture
def stage2(model) -> M2CModel:
    return add_adapter(model, "stage1")


@torch.no_grad()
def features(model, processor) -> torch.Tensor:
    images = [Image.new("RGB", (50, 40), color) for color in ("red", "blue")]
    return model.get_composed_features(**processor(images=images, text=["is big", ""], return_tensors="pt")).pooler_output


@torch.no_grad()
def text_features(model, processor) -> torch.Tensor:
    return model.get_text_features(**processor(text="a red circle", return_tensors="pt")).pooler_output


@pytest.fixture
def repositories(model, processor, tmp_path) -> dict:
    """Everything that can be shared of a stage-1 model and two adapters trained on it, and a model that is not their base."""
    paths = {name: tmp_path / name for name in ("stage1", "full", "adapter_a", "adapter_b", "merged", "other")}
    save_retriever(model, processor, paths["stage1"])
    for seed, name in enumerate(("adapter_a", "adapter_b")):
        trained = add_adapter(load_model(str(paths["stage1"])), str(paths["stage1"]), seed)
        save_adapter(trained, processor, paths[name], base=str(paths["stage1"]))
        if name == "adapter_a":
            save_retriever(trained, processor, paths["full"])
            trained.merge_adapter()
            save_retriever(trained, processor, paths["merged"])
    with torch.no_grad():
        model.token_mapper.fc_out.bias.add_(0.1)
    save_retriever(model, processor, paths["other"])
    return paths


FRESH = """
    import os, sys
    sys.path = [entry for entry in sys.path if entry != ""]
    {preamble}
    import torch
    from PIL import Image
    from safetensors.torch import save_file
    from transformers import AutoModel, AutoProcessor
    trust = {trust}

    def load(name):
        return AutoModel.from_pretrained(name, **trust), AutoProcessor.from_pretrained(name, **trust)

    features = {{}}

    @torch.no_grad()
    def measure(name, model, processor):
        images = [Image.new("RGB", (50, 40), color) for color in ("red", "blue")]
        inputs = processor(images=images, text=["is big", ""], return_tensors="pt")
        features[name] = model.get_composed_features(**inputs).pooler_output
        features["text " + name] = model.get_text_features(**processor(text="a red circle", return_tensors="pt")).pooler_output

    for name in ("stage1", "full", "adapter_a", "adapter_b", "merged"):
        model, processor = load(name)
        measure(name, model, processor)
        print(type(model).__module__)

    model, processor = load("full")
    model.disable_adapters()
    measure("full, disabled", model, processor)
    model.enable_adapters()
    measure("full, enabled again", model, processor)
    model.merge_adapter()
    measure("full, merged", model, processor)
    model.save_pretrained("merged again")
    measure("full, merged and saved", AutoModel.from_pretrained("merged again", **trust), processor)

    model, processor = load("stage1")
    model.load_adapter("adapter_a", adapter_name="a")
    model.load_adapter("adapter_b", adapter_name="b")
    for name in ("a", "b", "a"):
        model.set_adapter(name)
        measure("swapped to " + name, model, processor)
    save_file(features, "features.safetensors")

    model, processor = load("other")
    try:
        model.load_adapter("adapter_a")
    except ValueError as error:
        print("refused:", error)
    os.rename("stage1", "stage1-of-old")
    os.rename("other", "stage1")
    try:
        load("adapter_a")
    except ValueError as error:
        print("refused:", error)
"""
WITHOUT_PACKAGE = """
    class Blocker:
        def find_spec(self, name, *_):
            if name.split(".")[0] in ("m2c", "modeling_m2c", "processing_m2c", "hub_cards"):
                raise ModuleNotFoundError(name)
    sys.meta_path.insert(0, Blocker())
"""


@pytest.mark.parametrize("package", [False, True])
def test_everything_loads_in_a_fresh_process(repositories, processor, tmp_path, package):
    stage1, full, other_adapter = (load_model(str(repositories[name])) for name in ("stage1", "full", "adapter_b"))
    expected = {
        "stage1": (stage1, ["stage1", "full, disabled"]),
        "adapter_b": (other_adapter, ["adapter_b", "swapped to b"]),
        "full": (
            full,
            [
                *("full", "adapter_a", "swapped to a", "full, enabled again"),
                *("merged", "full, merged", "full, merged and saved"),
            ],
        ),
    }
    preamble, trust = ("import m2c", {}) if package else (WITHOUT_PACKAGE, {"trust_remote_code": True})
    code = textwrap.dedent(FRESH).format(preamble=textwrap.dedent(preamble), trust=trust)
    environment = {"PATH": "", "HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    *modules, refused, refused_at_load = result.stdout.strip().splitlines()
    assert all(module.startswith("modeling_m2c" if package else "transformers_modules") for module in modules)
    assert "'adapter_a' was trained on 'stage1'" in refused and "'other' (fingerprint" in refused
    assert "was trained on 'stage1'" in refused_at_load

    found = load_file(tmp_path / "features.safetensors")
    assert (features(stage1, processor) - features(full, processor)).abs().max() > 1e-2
    assert (features(other_adapter, processor) - features(full, processor)).abs().max() > 1e-2
    for model, names in expected.values():
        for name in names:
            torch.testing.assert_close(found.pop(name), features(model, processor), atol=1e-5, rtol=1e-5, msg=name)
            text = found.pop(f"text {name}")
            torch.testing.assert_close(text, text_features(stage1, processor), atol=1e-5, rtol=1e-5, msg=name)
    assert not found


def test_a_full_repository_may_be_moved(stage2, processor, tmp_path):
    save_retriever(stage2, processor, tmp_path / "repo")
    path = (tmp_path / "repo").rename(tmp_path / "moved")
    torch.testing.assert_close(features(load_model(str(path)), processor), features(stage2, processor), atol=1e-5, rtol=1e-5)


def test_a_base_beside_the_adapter_is_the_base_whatever_name_it_has(stage2, processor, tmp_path):
    """A full repository of the Hub names itself; nobody is asked for that name when it lies in a folder."""
    save_retriever(stage2, processor, tmp_path)
    set_base(tmp_path, "somebody/who-is-not-asked")
    assert is_m2c(str(tmp_path))
    torch.testing.assert_close(features(load_model(str(tmp_path)), processor), features(stage2, processor))


def test_an_adapter_alone_is_small_and_names_its_base(repositories, processor, model):
    names = {path.name for path in repositories["adapter_a"].iterdir()}
    assert "adapter_model.safetensors" in names and "config.json" not in names and "model.safetensors" not in names
    content = json.loads((repositories["adapter_a"] / "adapter_config.json").read_text())
    assert content["base_model_name_or_path"] == str(repositories["stage1"])
    assert content["auto_mapping"]["base_name"] == "stage1"
    with pytest.raises(ValueError, match=r"has no composing adapter"):
        save_adapter(model, processor, repositories["adapter_a"], base="stage1")
    full = load_model(str(repositories["full"]))
    with pytest.raises(ValueError, match=r"was trained on .*full', which .*other' is not"):
        save_adapter(full, processor, repositories["adapter_a"], base=str(repositories["other"]))


def test_merging_leaves_clip_alone(stage2, processor, clip):
    """Also while several adapters are there: the active one is merged."""
    before, text = features(stage2, processor), text_features(stage2, processor)
    stage2.add_adapter(stage2.peft_config["default"], adapter_name="idle")
    stage2.set_adapter("default")
    stage2.merge_adapter()
    torch.testing.assert_close(features(stage2, processor), before, atol=1e-5, rtol=1e-5)
    assert torch.equal(text_features(stage2, processor), text)
    for name, tensor in clip.state_dict().items():
        assert torch.equal(stage2.state_dict()[name], tensor), name
    assert not [name for name in stage2.state_dict() if "lora" in name]
    with pytest.raises(ValueError, match="No adapter"):
        stage2.merge_adapter()


def test_adapters_that_are_off_are_not_merged(stage2):
    stage2.disable_adapters()
    with pytest.raises(ValueError, match="switched off"):
        stage2.merge_adapter()


def test_a_user_saves_what_was_loaded(repositories, processor, tmp_path):
    """With transformers' own method, which writes the adapter alone: it finds the full repository as its base."""
    full = AutoModel.from_pretrained(repositories["full"])
    full.save_pretrained(tmp_path / "again")
    again = AutoModel.from_pretrained(tmp_path / "again")
    torch.testing.assert_close(features(again, processor), features(full, processor), atol=1e-5, rtol=1e-5)


def test_deleting_the_adapter_is_going_back_to_stage_1(repositories, processor):
    full, stage1 = load_model(str(repositories["full"])), load_model(str(repositories["stage1"]))
    full.delete_adapter("default")
    torch.testing.assert_close(features(full, processor), features(stage1, processor), atol=1e-5, rtol=1e-5)


def test_wrong_bases_are_refused_whatever_the_way(repositories, processor, make_config):
    """By configuration and weights in memory, of another size, and for an adapter that was trained on a merged model."""
    other = load_model(str(repositories["other"]))
    trained = load_model(str(repositories["adapter_a"]))
    with pytest.raises(ValueError, match="was trained on 'stage1'"):
        other.load_adapter(peft_config=trained.peft_config["default"], adapter_state_dict=trained.get_adapter_state_dict())
    assert not other._hf_peft_config_loaded and not [name for name in other.state_dict() if "lora" in name]

    larger = M2CModel(make_config(text_config={**make_config().text_config.to_dict(), "hidden_size": 64}))
    with pytest.raises(ValueError, match="was trained on 'stage1'"):
        larger.load_adapter(str(repositories["adapter_a"]))

    merged = add_adapter(load_model(str(repositories["merged"])), str(repositories["merged"]))
    save_adapter(merged, processor, repositories["adapter_b"], base=str(repositories["merged"]))
    with pytest.raises(ValueError, match="was trained on 'merged'"):
        load_model(str(repositories["stage1"])).load_adapter(str(repositories["adapter_b"]))


def test_an_adapter_that_lacks_weights_is_refused(repositories):
    path = repositories["adapter_a"] / "adapter_model.safetensors"
    weights = load_file(path)
    weights.pop(sorted(weights)[0])
    save_file(weights, path, metadata={"format": "pt"})
    model = load_model(str(repositories["stage1"]))
    with pytest.raises(ValueError, match="lacks 1 weights"):
        model.load_adapter(str(repositories["adapter_a"]))
    assert not model._hf_peft_config_loaded


def test_a_base_that_is_gone_is_named(repositories):
    repositories["stage1"].rename(repositories["stage1"].with_name("moved"))
    with pytest.raises(ValueError, match=r"adapter_a, the adapter of .*stage1"):
        load_model(str(repositories["adapter_a"]))


def test_a_second_adapter_loads_without_an_alarm(repositories, capfd):
    model = load_model(str(repositories["adapter_a"]))
    capfd.readouterr()
    model.load_adapter(str(repositories["adapter_b"]), adapter_name="b")
    assert "MISSING" not in "".join(capfd.readouterr())


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
        "config_sentence_transformers.json",
        "configuration_m2c.py",
        "images.py",
        "model.safetensors",
        "modeling_m2c.py",
        "modules.json",
        "pipeline_m2c.py",
        "processing_m2c.py",
        "processor_config.json",
        "prompts.py",
        "residual_adapter.py",
        "sentence_bert_config.json",
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
