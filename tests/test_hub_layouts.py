"""CLIP checkpoints as they lie on the Hub, old and new, load with everything they have."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import pre_tokenizers

from m2c.checkpoints import load_model, load_processor


# What `openai/clip-*` carry beside their sizes, of releases long gone.
OLD_TOWER = {
    "_name_or_path": "",
    "add_cross_attention": False,
    "bos_token_id": 0,
    "eos_token_id": 2,
    "pad_token_id": 1,
    "output_attentions": False,
    "return_dict": True,
    "torch_dtype": None,
    "transformers_version": "4.16.0.dev0",
    "use_bfloat16": False,
}
OLD_IMAGE_PROCESSOR = {
    "crop_size": 32,
    "do_center_crop": True,
    "do_normalize": True,
    "do_resize": True,
    "feature_extractor_type": "CLIPFeatureExtractor",
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_std": [0.26862954, 0.26130258, 0.27577711],
    "resample": 3,
    "size": 32,
}


def write_slow_tokenizer(path) -> int:
    """`vocab.json` and `merges.txt`, as CLIP's byte-level BPE has them, without a `tokenizer.json`. Returns the vocabulary."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = ["p h", "ph o", "pho t", "phot o</w>", "o f</w>", "t h", "th a", "tha t</w>"]
    words = letters + [f"{letter}</w>" for letter in letters] + [merge.replace(" ", "") for merge in merges]
    words += ["<|startoftext|>", "<|endoftext|>"]
    (path / "vocab.json").write_text(json.dumps({word: index for index, word in enumerate(words)}))
    (path / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n")
    for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"):
        (path / name).unlink(missing_ok=True)
    special = {"bos_token": "<|startoftext|>", "eos_token": "<|endoftext|>", "unk_token": "<|endoftext|>"}
    special["pad_token"] = "<|endoftext|>"
    (path / "special_tokens_map.json").write_text(json.dumps(special))
    (path / "tokenizer_config.json").write_text(
        json.dumps({**special, "do_lower_case": True, "model_max_length": 40, "tokenizer_class": "CLIPTokenizer"})
    )
    return len(words)


@pytest.fixture
def openai_layout(clip_path):
    """`openai/clip-*`: end-of-text id 2, the tower's settings twice, ints as sizes, `position_ids` among the weights."""
    vocabulary = write_slow_tokenizer(clip_path)
    config = json.loads((clip_path / "config.json").read_text())
    for tower in ("text_config", "vision_config"):
        config[tower] = {**config[tower], **OLD_TOWER}
        config[f"{tower}_dict"] = dict(config[tower])
    for key in ("text_config", "text_config_dict"):
        config[key]["vocab_size"] = vocabulary
    config |= {"torch_dtype": "float32", "transformers_version": None, "architectures": ["CLIPModel"]}
    (clip_path / "config.json").write_text(json.dumps(config))
    (clip_path / "preprocessor_config.json").write_text(json.dumps(OLD_IMAGE_PROCESSOR))
    weights = load_file(clip_path / "model.safetensors")
    weights["text_model.embeddings.position_ids"] = torch.arange(40)[None]
    weights["vision_model.embeddings.position_ids"] = torch.arange(17)[None]
    embedding = "text_model.embeddings.token_embedding.weight"
    weights[embedding] = torch.randn(vocabulary, weights[embedding].shape[1], generator=torch.Generator().manual_seed(0))
    (clip_path / "model.safetensors").unlink()
    torch.save(weights, clip_path / "pytorch_model.bin")
    return clip_path, weights


@torch.no_grad()
def test_openai_layout(openai_layout, pixels, capsys):
    path, weights = openai_layout
    model, processor = load_model(str(path)), load_processor(str(path))
    for name, tensor in weights.items():
        if not name.endswith("position_ids"):
            assert torch.equal(model.state_dict()[name], tensor), name
    assert "UNEXPECTED" not in capsys.readouterr().err
    prompt = processor.composed_prompt(["photo of that", ""], return_tensors="pt")
    assert processor.tokenizer.convert_ids_to_tokens(prompt.input_ids[1])[1:4] == ["a</w>", "photo</w>", "of</w>"]
    features = model.get_composed_features(pixel_values=pixels[:2], **prompt).pooler_output
    ends = (prompt.input_ids == processor.tokenizer.eos_token_id).int().argmax(-1)
    assert torch.equal(model._end_of_text_position(prompt.input_ids), ends)
    longer = torch.nn.functional.pad(prompt.input_ids, (0, 3), value=processor.tokenizer.eos_token_id)
    again = model.get_composed_features(longer, pixels[:2], prompt.pseudo_word_position).pooler_output
    torch.testing.assert_close(again, features, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_laion_layout(clip, clip_path, pixels, processor):
    """LAION's conversions: GELU, the true end-of-text id, weights in several files."""
    config = json.loads((clip_path / "config.json").read_text())
    for tower in ("text_config", "vision_config"):
        config[tower]["hidden_act"] = "gelu"
    (clip_path / "config.json").write_text(json.dumps(config))
    weights = load_file(clip_path / "model.safetensors")
    names = sorted(weights)
    files = {"model-00001-of-00002.safetensors": names[::2], "model-00002-of-00002.safetensors": names[1::2]}
    (clip_path / "model.safetensors").unlink()
    for file, part in files.items():
        save_file({name: weights[name] for name in part}, clip_path / file, metadata={"format": "pt"})
    index = {"metadata": {"total_size": 1}, "weight_map": {name: file for file, part in files.items() for name in part}}
    (clip_path / "model.safetensors.index.json").write_text(json.dumps(index))

    model = load_model(str(clip_path)).eval()
    assert model.config.text_config.hidden_act == "gelu"
    for name, tensor in clip.state_dict().items():
        assert torch.equal(model.state_dict()[name], tensor), name
    text = processor(text=["a red circle"], return_tensors="pt")
    assert (model.get_text_features(**text).pooler_output - clip.get_text_features(**text).pooler_output).abs().max() > 1e-5
