"""Converted models compute what the authors' networks compute, and nothing else is accepted."""

import argparse
import json
import os
import re
from pathlib import Path

import pytest
import torch
from PIL import Image
from transformers import AutoImageProcessor, AutoModel, AutoProcessor, CLIPModel
from typer.testing import CliRunner

from m2c.checkpoints import load_processor
from m2c.cli import app
from m2c.conversion import convert, load_mapper, load_original
from modeling_m2c import M2CModel


def save(content, path):
    torch.save(content, path)
    return path


def queries(sizes) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Images, prompts whose last word is the highest id, and positions of the pseudo-word."""
    generator = torch.Generator().manual_seed(5)
    side = sizes.patch * sizes.grid
    images = torch.randn(3, 3, side, side, generator=generator)
    ids = torch.randint(1, sizes.vocabulary - 1, (3, sizes.context), generator=generator)
    ends = torch.tensor([sizes.context - 1, 6, 4])
    ids[torch.arange(3), ends] = sizes.vocabulary - 1
    ids[torch.arange(sizes.context) > ends[:, None]] = 0
    return images, ids, torch.tensor([1, 5, 2])


def close(ours, theirs):
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


VARIANTS = [
    {},
    {"seed": 1, "text": 64, "projection": 64, "depth": 12, "va_layers": (3, 7, 9, 11), "ca_layers": (1, 3, 5, 7, 9, 11)},
    {"seed": 2, "vision": 128, "grid": 5, "va_layers": (4, 0), "ca_layers": (5, 1), "mapper": 56, "injection": 32, "rank": 9},
    {"seed": 3, "va_layers": (), "ca_layers": (2,)},
]


@pytest.mark.parametrize("variant", VARIANTS)
@torch.no_grad()
def test_m2c_matches_the_reference(make_m2c, make_reference, sizes, tmp_path, variant):
    sizes = sizes(**variant)
    checkpoint = make_m2c(sizes)
    reference = make_reference(checkpoint)
    convert(save(checkpoint, tmp_path / "m2c.pt"), tmp_path / "out", "m2c", warn=lambda _: None)
    model = AutoModel.from_pretrained(tmp_path / "out").eval()
    assert model.config.injection_layers == sorted(sizes.va_layers)

    images, ids, position = queries(sizes)
    hidden = reference.hidden(images)
    close(model.get_image_tokens(images), hidden)
    close(model.get_image_features(images).pooler_output, hidden[:, 0])
    close(model.get_text_features(ids).pooler_output, reference.text(ids))
    token = reference.token(hidden[:, 0], "layers.layers.")
    close(model.encode_reference(hidden).pseudo_word, token)

    composed = model.get_composed_features(ids, images, position).pooler_output
    stage1, stage2 = (reference.text(ids, token, position, hidden, residual) for residual in (False, True))
    close(composed, stage2)
    assert (stage1 - stage2).abs().max() > 1e-2
    model.disable_adapters()
    close(model.get_composed_features(ids, images, position).pooler_output, stage1)
    model.enable_adapters()
    assert torch.equal(model.get_composed_features(ids, images, position).pooler_output, composed)


@pytest.mark.skipif("M2C_GOLDEN" not in os.environ, reason="M2C_GOLDEN names a folder with the authors' outputs")
@torch.no_grad()
def test_golden_outputs_of_the_authors_code(tmp_path):
    folder = Path(os.environ["M2C_GOLDEN"])
    convert(folder / "tscir_tiny_checkpoint.pt", tmp_path / "out", "m2c", warn=lambda _: None)
    model = AutoModel.from_pretrained(tmp_path / "out").eval()
    golden = torch.load(folder / "tscir_tiny_expected.pt", weights_only=True)
    images, ids = golden["image"], golden["text"]
    query = (ids, images, (ids == golden["split"]).int().argmax(-1))
    close(model.get_image_features(images).pooler_output, golden["image_embeds"])
    close(model.get_image_tokens(images), golden["hidden"])
    close(model.encode_reference(golden["hidden"]).pseudo_word, golden["token"])
    close(model.get_text_features(ids).pooler_output, golden["text_embeds"])
    close(model.get_composed_features(*query).pooler_output, golden["stage2"])
    model.disable_adapters()
    close(model.get_composed_features(*query).pooler_output, golden["stage1"])


@torch.no_grad()
def test_pic2word_matches_the_reference(make_pic2word, make_reference, sizes, tmp_path):
    checkpoint = make_pic2word()
    reference = make_reference(checkpoint)
    model = load_original(save(checkpoint, tmp_path / "pic2word.pt"), "pic2word")
    assert model.semantic_injection is None and not model.residual_adapters
    images, ids, position = queries(sizes())
    v = reference.hidden(images)[:, 0]
    expected = reference.text(ids, reference.token(v, "layers."), position)
    close(model.get_composed_features(ids, images, position).pooler_output, expected)


def same_model(one, other) -> bool:
    return one.config.to_dict() == other.config.to_dict() and all(
        torch.equal(tensor, other.state_dict()[name]) for name, tensor in one.state_dict().items()
    )


def test_habits_of_real_files(make_m2c, tmp_path):
    """A Namespace, the prefix of distributed training, an optimiser's state, and numbers that OpenAI's archives carry."""
    checkpoint = make_m2c()
    plain = load_original(save(checkpoint, tmp_path / "plain.pt"), "m2c")
    parts = {key: value for key, value in checkpoint.items() if key.startswith("state_dict")}
    prefixed = {part: {f"module.{name}": tensor for name, tensor in value.items()} for part, value in parts.items()}
    prefixed["state_dict"] |= {"input_resolution": torch.tensor(12), "context_length": torch.tensor(12)}
    prefixed |= {"args": argparse.Namespace(**checkpoint["args"], lr=1e-4), "optimizer": {"state": {0: torch.zeros(9)}}}
    assert same_model(load_original(save(prefixed, tmp_path / "prefixed.pt"), "m2c"), plain)
    torch.save(checkpoint, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    assert same_model(load_original(tmp_path / "old.pt", "m2c"), plain)


def test_published_layers_when_the_file_does_not_say(make_m2c, sizes, tmp_path):
    published = {"depth": 12, "va_layers": (3, 7, 9, 11), "ca_layers": (1, 3, 5, 7, 9, 11)}
    checkpoint = make_m2c(sizes(**published))
    del checkpoint["args"]
    model = load_original(save(checkpoint, tmp_path / "m2c.pt"), "m2c")
    assert model.config.injection_layers == [3, 7, 9, 11]
    assert model.config.residual_adapter_layers == [1, 3, 5, 7, 9, 11]
    checkpoint = make_m2c()
    del checkpoint["args"]
    with pytest.raises(ValueError, match=r"has 3 modules for the text blocks \[3, 7, 9, 11\] \(the default"):
        load_original(save(checkpoint, tmp_path / "other.pt"), "m2c")


def test_stage_1_files_have_no_residual_adapters(make_m2c, tmp_path):
    checkpoint = make_m2c()
    del checkpoint["state_dict_lora"]
    model = load_original(save(checkpoint, tmp_path / "m2c.pt"), "m2c")
    with pytest.raises(ValueError, match="No adapter"):
        model.disable_adapters()


@pytest.fixture
def phi(clip) -> torch.nn.Sequential:
    """The network of SEARLE and LinCIR."""
    torch.manual_seed(4)
    p, h, wide = clip.config.projection_dim, clip.config.text_config.hidden_size, 4 * clip.config.projection_dim
    layers = [torch.nn.Linear(p, wide), torch.nn.GELU(), torch.nn.Dropout(0.5)]
    layers += [torch.nn.Linear(wide, wide), torch.nn.GELU(), torch.nn.Dropout(0.5), torch.nn.Linear(wide, h)]
    return torch.nn.Sequential(*layers).eval()


def phi_file(phi, path):
    return save({"epoch": 1, "Phi": {f"layers.{name}": tensor for name, tensor in phi.state_dict().items()}}, path)


@pytest.mark.parametrize("method", ["searle", "lincir"])
@torch.no_grad()
def test_gelu_mappers_match_a_direct_computation(phi, clip, clip_path, tmp_path, method):
    out = tmp_path / "out"
    convert(phi_file(phi, tmp_path / "phi.pt"), out, method, clip=str(clip_path))
    model, processor = AutoModel.from_pretrained(out), AutoProcessor.from_pretrained(out)
    images = [Image.effect_noise((40, 40), 80).convert("RGB"), Image.new("RGB", (50, 30), "red")]
    texts = ["is big, and has a $ on it", "is a blue star"]
    ours = model.get_composed_features(**processor(images=images, text=texts, return_tensors="pt")).pooler_output

    # Directly: CLIP with the pseudo-word as the embedding of a word that the prompt does not hold.
    embeds = clip.get_image_features(processor(images=images, return_tensors="pt").pixel_values).pooler_output
    spare = processor.tokenizer.convert_tokens_to_ids("cyan")
    for embed, text, our in zip(embeds, texts, ours):
        plain = CLIPModel.from_pretrained(clip_path).eval()
        plain.text_model.embeddings.token_embedding.weight[spare] = phi(embed)
        ids = processor.tokenizer(f"a photo of cyan that {text}", return_tensors="pt").input_ids
        assert (ids == spare).sum() == 1
        close(our, plain.get_text_features(ids).pooler_output[0])


def test_a_mapper_of_another_clip(phi, make_config, tmp_path):
    path = phi_file(phi, tmp_path / "phi.pt")
    with pytest.raises(ValueError, match="name the CLIP"):
        load_mapper(path, None)
    with pytest.raises(ValueError, match=r"Phi\['layers.0.weight'\] has shape .* trained with another CLIP than 'scenes'"):
        load_mapper(path, "scenes")
    with pytest.raises(ValueError, match="cannot load a CLIP from 'nowhere'"):
        load_mapper(path, "nowhere")
    M2CModel(make_config()).save_pretrained(tmp_path / "m2c")
    with pytest.raises(ValueError, match="is an M2C model; name the plain CLIP"):
        load_mapper(path, str(tmp_path / "m2c"))


@pytest.mark.parametrize("part", ["state_dict", "state_dict_img2text", "state_dict_lora"])
def test_every_tensor_counts(make_m2c, tmp_path, part):
    """A missing, a misshapen and a surplus tensor are named, whichever it is."""
    path = tmp_path / "m2c.pt"
    names = list(make_m2c()[part])
    for name in names[:: max(1, len(names) // 12)]:
        broken = make_m2c()
        tensor = broken[part].pop(name)
        with pytest.raises(ValueError, match=re.escape(f"{part}['{name}'] is missing")):
            load_original(save(broken, path), "m2c")
        broken[part][name] = torch.zeros(*tensor.shape, 2)
        with pytest.raises(ValueError, match=re.escape(f"{part}['{name}'] has shape")):
            load_original(save(broken, path), "m2c")
    broken = make_m2c()
    broken[part]["extra.weight"] = torch.zeros(2)
    with pytest.raises(ValueError, match=rf"{part} holds 1 tensors that this layout does not know: extra.weight"):
        load_original(save(broken, path), "m2c")


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ([], r"has 3 modules for the text blocks \[\]"),
        ([1, 3], "has 3 modules"),
        ([1, 1, 3, 5], "has 3 modules"),
        ("1,3,5", "should list text blocks as whole numbers"),
        (["1", "3", "5"], "whole numbers"),
        ([1.0, 3.0, 5.0], "whole numbers"),
        ([[1], 3, 5], "whole numbers"),
        (torch.tensor([1, 3, 5]), "whole numbers"),
        (3, "whole numbers"),
        ([1, 3, 99], "must lie in 0..5"),
    ],
)
@pytest.mark.parametrize("argument", ["va_layers", "ca_layers"])
def test_text_blocks_that_cannot_be(make_m2c, tmp_path, argument, layers, message):
    checkpoint = make_m2c()
    checkpoint["args"][argument] = layers
    with pytest.raises(ValueError, match=message):
        load_original(save(checkpoint, tmp_path / "m2c.pt"), "m2c")


def test_modules_that_the_arguments_promise(make_m2c, tmp_path):
    """An M2C file without its injection is no mapper-only model."""
    for argument, part, prefix in (("va_layers", "state_dict_img2text", "adapters."), ("ca_layers", "state_dict_lora", "lora")):
        checkpoint = make_m2c()
        checkpoint[part] = {name: tensor for name, tensor in checkpoint[part].items() if not name.startswith(prefix)}
        with pytest.raises(ValueError, match=rf"has 0 modules for the text blocks .* \(args.{argument}\)"):
            load_original(save(checkpoint, tmp_path / "m2c.pt"), "m2c")
    for arguments in ("text", [1], torch.ones(1)):
        with pytest.raises(ValueError, match="args should be a Namespace or a dictionary"):
            load_original(save({**make_m2c(), "args": arguments}, tmp_path / "m2c.pt"), "m2c")


def test_parts_that_do_not_fit_each_other(make_m2c, sizes, tmp_path):
    checkpoint = make_m2c()
    checkpoint["state_dict_img2text"] = make_m2c(sizes(text=64))["state_dict_img2text"]
    with pytest.raises(ValueError, match=r"state_dict_img2text\['fc_out.weight'\] has shape \(64, 24\), where \(128, 24\)"):
        load_original(save(checkpoint, tmp_path / "m2c.pt"), "m2c")


def test_the_wrong_layout_is_named(make_m2c, make_pic2word, phi, tmp_path):
    with pytest.raises(ValueError, match=r"state_dict_img2text\['layers.layers.0.0.weight'\] is missing"):
        load_original(save(make_pic2word(), tmp_path / "pic2word.pt"), "m2c")
    with pytest.raises(ValueError, match=r"no 'state_dict'; it has 'epoch', 'Phi'"):
        load_original(phi_file(phi, tmp_path / "phi.pt"), "m2c")
    with pytest.raises(ValueError, match="no 'Phi'"):
        load_mapper(save(make_m2c(), tmp_path / "m2c.pt"), "scenes")


def run_convert(checkpoint, output, *options):
    return CliRunner().invoke(app, ["convert", str(checkpoint), str(output), "--from", "pic2word", *options])


def test_templates_and_tokenizer(make_pic2word, sizes, clip_path, tmp_path, processor):
    """With a CLIP whose tokenizer fits, the folder has a processor with the method's prompt; else it says so."""
    vocabulary = len(processor.tokenizer)
    path = save(make_pic2word(sizes(vocabulary=vocabulary, patch=8, grid=4)), tmp_path / "pic2word.pt")
    result = run_convert(path, tmp_path / "a", "--clip", str(clip_path))
    assert result.exit_code == 0, result.output
    loaded = AutoProcessor.from_pretrained(tmp_path / "a")
    assert loaded.composing_template == "a photo of * , {text}"
    assert loaded(images=Image.new("RGB", (90, 50)), return_tensors="pt").pixel_values.shape == (1, 3, 32, 32)
    card = (tmp_path / "a" / "README.md").read_text()
    record = json.loads((tmp_path / "a" / "conversion.json").read_text())
    assert record["sha256"] in card and "get_composed_features" in card and str(tmp_path) not in card + json.dumps(record)

    result = run_convert(path, tmp_path / "b")
    assert result.exit_code == 0 and "carries no tokenizer, and its vocabulary" in result.output
    assert AutoImageProcessor.from_pretrained(tmp_path / "b").crop_size["height"] == 32
    assert "no `AutoProcessor`" in (tmp_path / "b" / "README.md").read_text()
    with pytest.raises(ValueError, match="a model without a processor; convert it again with --clip"):
        load_processor(str(tmp_path / "b"))

    other = save(make_pic2word(), tmp_path / "other.pt")
    result = run_convert(other, tmp_path / "c", "--clip", str(clip_path))
    assert result.exit_code == 1 and f"knows {vocabulary} tokens, the checkpoint 60" in result.output
    assert not (tmp_path / "c").exists()


def test_what_is_there_is_left_alone(make_pic2word, tmp_path):
    path = save(make_pic2word(), tmp_path / "pic2word.pt")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("mine")
    result = run_convert(path, tmp_path / "out")
    assert result.exit_code == 1 and "exists already" in result.output
    assert [entry.name for entry in (tmp_path / "out").iterdir()] == ["mine"]
