"""Whole runs of the training script on tiny models, as users start them."""

import os
from pathlib import Path

import pytest
import torch
from accelerate.state import AcceleratorState
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load_file
from transformers import AutoModel
from transformers.models.clip.modeling_clip import CLIPAttention

from m2c.checkpoints import load_model
from m2c.data import scenes
from m2c.training import TrainingConfig, train
from m2c.training.steps.step import TrainingStep

from .runs import FAST, SMALL, assert_same_weights, log_of, on_folder, run, weights_of


def test_both_stages(stage1, clip, tmp_path):
    out = tmp_path / "stage2"
    assert run(*FAST, "--stage", 2, "--model", stage1, "--output_dir", out, "--validation_size", 4, "--eval_steps", 3) == 0
    entries = log_of(stage1)
    assert [entry["step"] for entry in entries] == [1, 2, 3, 4, 5, 6]
    assert set(entries[0]) == {"step", "loss", "view_b", "view_a", "soft", "learning_rate", "seconds"}
    validated = [entry["step"] for entry in log_of(out) if "validation_recall@1" in entry]
    assert validated == [3, 6]
    model = AutoModel.from_pretrained(out)
    for name, tensor in clip.state_dict().items():
        assert torch.equal(model.state_dict()[name], tensor), f"CLIP is frozen: {name}"
    adapter = load_file(out / "adapter_model.safetensors")
    assert any(tensor.abs().sum() > 0 for name, tensor in adapter.items() if "lora_B" in name)
    base = load_file(out / "model.safetensors")
    for name, tensor in load_file(stage1 / "model.safetensors").items():
        assert torch.equal(base[name], tensor), f"stage 2 trains nothing but adapters: {name}"
    card = (out / "README.md").read_text()
    assert "composed-image-retrieval" in card and str(tmp_path) not in card


def test_training_learns(tmp_path):
    out = tmp_path / "out"
    arguments = ["--max_steps", 30, "--batch_size", 32, "--max_samples", 64, "--log_steps", 1, "--mapper_only"]
    assert run(*arguments, "--model", "scenes", "--output_dir", out) == 0
    losses = [entry["loss"] for entry in log_of(out)]
    assert sum(losses[-5:]) < 0.4 * sum(losses[:5])


@pytest.mark.parametrize("stage", [1, 2])
@pytest.mark.parametrize("views", [0, 1])
def test_the_same_seed_gives_the_same_weights_and_another_does_not(clip_path, stage1, tmp_path, stage, views):
    start = [*SMALL, "--model", clip_path] if stage == 1 else ["--stage", 2, "--model", stage1]
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        assert run(*FAST, *start, "--output_dir", tmp_path / name, "--seed", seed, "--cached_views", views) == 0
    assert_same_weights(tmp_path / "a", tmp_path / "b")
    with pytest.raises(AssertionError):
        assert_same_weights(tmp_path / "a", tmp_path / "c")


def test_a_checkpoint_holds_only_what_is_trained(clip_path, tmp_path):
    assert run(*FAST, *SMALL, "--model", clip_path, "--checkpoint_steps", 4, "--output_dir", tmp_path / "out") == 0
    state = load_file(tmp_path / "out" / "checkpoints" / "step_000004" / "trained.safetensors")
    assert all(name.startswith(("model.token_mapper", "model.semantic_injection")) for name in state)
    assert any("running_mean" in name for name in state)


def test_mapper_only(clip_path, tmp_path):
    arguments = [*FAST, "--mapper_hidden_size", 16, "--model", clip_path, "--mapper_only"]
    assert run(*arguments, "--output_dir", tmp_path / "out") == 0
    assert not [name for name in weights_of(tmp_path / "out") if "injection" in name]


@pytest.mark.parametrize("stage", [1, 2])
def test_activation_checkpointing_computes_twice_and_changes_nothing(clip_path, stage1, tmp_path, stage, monkeypatch):
    calls = []
    forward = CLIPAttention.forward
    monkeypatch.setattr(CLIPAttention, "forward", lambda *args, **kwargs: (calls.append(1), forward(*args, **kwargs))[1])
    start = [*SMALL, "--model", clip_path] if stage == 1 else ["--stage", 2, "--model", stage1]
    counts = []
    for name, flags in (("plain", []), ("checkpointed", ["--gradient_checkpointing"])):
        calls.clear()
        arguments = [*FAST, *start, "--cached_views", 1, "--cache_dir", tmp_path / f"cache of {name}"]
        assert run(*arguments, "--output_dir", tmp_path / name, *flags) == 0
        counts.append(len(calls))
    # Four layers in each of six steps, and in stage 2 two prompts.
    assert counts[1] - counts[0] == 6 * 4 * stage
    plain, checkpointed = weights_of(tmp_path / "plain"), weights_of(tmp_path / "checkpointed")
    for name in plain:
        torch.testing.assert_close(plain[name], checkpointed[name], atol=1e-4, rtol=1e-3)


def test_mixed_precision(clip_path, tmp_path, monkeypatch):
    """The towers and what is trained compute in half the bits, and weights keep all of theirs."""
    seen, take = {"token_mapper": set(), "attention": set()}, TrainingStep.take

    def take_and_look(self, step, batch):
        modules = {"token_mapper": self.model.token_mapper.fc1, "attention": self.model.composing_encoder.layers[0].self_attn}
        hooks = [
            module.register_forward_hook(lambda module, args, out, name=name: seen[name].add((*out,)[0].dtype))
            for name, module in modules.items()
        ]
        try:
            return take(self, step, batch)
        finally:
            for hook in hooks:
                hook.remove()

    monkeypatch.setattr(TrainingStep, "take", take_and_look)
    assert run(*FAST, *SMALL, "--model", clip_path, "--output_dir", tmp_path / "out", "--mixed_precision", "bf16") == 0
    assert {tensor.dtype for tensor in weights_of(tmp_path / "out").values()} <= {torch.float16, torch.float32, torch.int64}
    assert seen == {"token_mapper": {torch.bfloat16}, "attention": {torch.bfloat16}}
    losses = [entry["loss"] for entry in log_of(tmp_path / "out")]
    AcceleratorState._reset_state()
    assert run(*FAST, *SMALL, "--model", clip_path, "--output_dir", tmp_path / "plain") == 0
    exact = [entry["loss"] for entry in log_of(tmp_path / "plain")]
    assert losses != exact and losses == pytest.approx(exact, rel=0.05), "coarser, and of the same data"


def test_a_disk_that_is_full_when_the_model_is_saved(clip_path, tmp_path, capsys, monkeypatch):
    def full(*_):
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    arguments = [*FAST, *SMALL, "--model", clip_path, "--checkpoint_steps", 4]
    assert run(*arguments, "--output_dir", tmp_path / "whole") == 0
    out = tmp_path / "out"
    monkeypatch.setattr("m2c.training.trainer.save_retriever", full)
    assert run(*arguments, "--output_dir", out) == 1
    message = capsys.readouterr().err
    assert f"error: the trained model could not be written to {out}: " in message and "No space left on device" in message
    assert "Make room there, and go on with --resume" in message
    assert {path.name for path in out.iterdir()} == {"checkpoints", "learning_curves.png", "log.jsonl", "run.json"}
    monkeypatch.undo()
    assert run(*arguments, "--output_dir", out, "--resume") == 0
    assert_same_weights(tmp_path / "whole", out)


def test_stage_2_needs_stage_1(clip_path, tmp_path, capsys):
    assert run(*FAST, "--stage", 2, "--model", clip_path, "--output_dir", tmp_path / "out") == 1
    assert "stage 2 starts from what stage 1 wrote" in capsys.readouterr().err


def test_an_m2c_checkpoint_keeps_its_configuration(stage1, tmp_path, capsys):
    assert run(*FAST, "--model", stage1, "--output_dir", tmp_path / "out", "--mapper_only") == 1
    assert "is an M2C checkpoint with injection_layers [0, 2], not []" in capsys.readouterr().err


def test_a_clip_without_its_tokenizer_is_named(clip_path, tmp_path, capsys):
    for path in clip_path.glob("token*"):
        path.unlink()
    assert run(*FAST, "--model", clip_path, "--output_dir", tmp_path / "out") == 1
    assert f"cannot load a CLIP from '{clip_path}'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--dataset", "no/such-set"], "no such folder, and it was not found on the Hub"),
        (["--batch_size", 1000], "--batch_size 1000 times 1 processes is more than the 10 rows"),
        (["--validation_size", 10], "--validation_size 10 leaves nothing of 10 rows"),
        (["--image_column", "caption"], "column 'caption' of"),
        (["--model", "no/such-model"], "cannot load a CLIP from 'no/such-model'"),
        (["--learning_rate", -1], "--learning_rate must be positive"),
        (["--max_grad_norm", "inf"], "--max_grad_norm must be a number"),
        (["--soft_weight", "nan"], "--soft_weight must be a number"),
    ],
)
def test_wrong_arguments_are_named(pairs_folder, clip_path, tmp_path, capsys, arguments, message):
    assert on_folder(pairs_folder, clip_path, tmp_path, *arguments) == 1
    assert message in capsys.readouterr().err


def test_what_is_to_write_nothing_is_not_trained(tmp_path):
    with pytest.raises(ValueError, match="rehearse"):
        train(TrainingConfig(output_dir=str(tmp_path / "out"), dry_run=True))
    assert not (tmp_path / "out").exists()


def test_train_returns_what_it_saved(clip_path, tmp_path):
    config = TrainingConfig(
        model=str(clip_path), output_dir=str(tmp_path / "out"), max_steps=2, batch_size=4, max_samples=8, mapper_hidden_size=16
    )
    model, processor = train(config)
    inputs = processor(images=Image.new("RGB", (9, 9)), text="is red", return_tensors="pt")
    with torch.no_grad():
        saved = AutoModel.from_pretrained(tmp_path / "out").get_composed_features(**inputs).pooler_output
        torch.testing.assert_close(model.get_composed_features(**inputs).pooler_output, saved, atol=1e-5, rtol=1e-5)


def test_training_is_the_same_with_stored_features_and_with_new_ones(clip_path, tmp_path):
    weights = []
    for name in ("new", "stored"):
        arguments = {"model": str(clip_path), "max_samples": 8, "batch_size": 4, "max_steps": 4, "validation_size": 2}
        train(TrainingConfig(**arguments, output_dir=str(tmp_path / name), mapper_hidden_size=8, injection_hidden_size=8))
        weights.append(load_file(tmp_path / name / "model.safetensors"))
    assert all(torch.equal(tensor, weights[1][name]) for name, tensor in weights[0].items())


def test_averaged_patches_from_training_to_a_query(clip_path, tmp_path):
    """The option of stage 1 is a property of the model: of its features, of stage 2, and of whoever loads it."""
    small = {"max_samples": 8, "batch_size": 4, "max_steps": 2}
    narrow = {"mapper_hidden_size": 8, "injection_hidden_size": 8}
    stage1 = TrainingConfig(model=str(clip_path), output_dir=str(tmp_path / "1"), patch_grid=2, **narrow, **small)
    model, processor = train(stage1)
    assert model.config.injection_grid_size == 2
    stored = [shape_of(path, "image_tokens") for path in Path(os.environ["M2C_CACHE"]).rglob("*.safetensors")]
    assert {shape[1:] for shape in stored} == {(1 + 4, 24)}
    composed, _ = train(TrainingConfig(stage=2, model=stage1.output_dir, output_dir=str(tmp_path / "2"), lora_rank=2, **small))
    inputs = processor(images=scenes.pairs(2)["image"][:], text=["is red", ""], return_tensors="pt")
    for trained, folder in ((model, "1"), (composed, "2")):
        loaded = load_model(str(tmp_path / folder)).eval()
        assert loaded.config.injection_grid_size == 2
        with torch.no_grad():
            expected = trained.eval().get_composed_features(**inputs).pooler_output
            torch.testing.assert_close(loaded.get_composed_features(**inputs).pooler_output, expected, atol=1e-5, rtol=1e-5)
    with pytest.raises(ValueError, match="injection_grid_size 2, not 4"):
        load_model(stage1.output_dir, injection_grid_size=4)


def shape_of(path: Path, name: str) -> tuple[int, ...]:
    return tuple(load_file(path)[name].shape)
