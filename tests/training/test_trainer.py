"""Whole runs of the training script on tiny models, as users start them."""

import json
import shutil

import pytest
import torch
from datasets import Dataset
from PIL import Image
from safetensors.torch import load_file
from transformers import AutoModel

import train_accelerate
from m2c.data import scenes
from m2c.data.image_folder import write_image_folder
from m2c.training import TrainingConfig, train


FAST = ["--max_steps", "6", "--batch_size", "4", "--max_samples", "14", "--log_steps", "1"]
SMALL = ["--mapper_hidden_size", "16", "--injection_hidden_size", "16"]


def run(*arguments) -> int:
    return train_accelerate.main([*map(str, arguments)])


@pytest.fixture
def stage1(clip_path, tmp_path):
    out = tmp_path / "stage1"
    assert run(*FAST, *SMALL, "--model", clip_path, "--output_dir", out) == 0
    return out


def log_of(out) -> list[dict]:
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


def weights_of(out) -> dict[str, torch.Tensor]:
    state = load_file(out / "model.safetensors")
    if (out / "adapter_model.safetensors").exists():
        state |= load_file(out / "adapter_model.safetensors")
    return state


def assert_same_weights(a, b) -> None:
    first, second = weights_of(a), weights_of(b)
    assert first.keys() == second.keys()
    for name, tensor in first.items():
        assert torch.equal(tensor, second[name]), name


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
    assert_same_base = {name: tensor for name, tensor in load_file(out / "model.safetensors").items()}
    for name, tensor in load_file(stage1 / "model.safetensors").items():
        assert torch.equal(assert_same_base[name], tensor), f"stage 2 trains nothing but adapters: {name}"
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


@pytest.mark.parametrize("views", [0, 2])
def test_resumed_is_uninterrupted(clip_path, tmp_path, views):
    """With 14 rows and batches of 4 an epoch has 3 steps: step 4 lies in the middle of the second."""
    arguments = [*FAST, *SMALL, "--model", clip_path, "--cached_views", views, "--checkpoint_steps", 4]
    assert run(*arguments, "--output_dir", tmp_path / "whole") == 0
    resumed = tmp_path / "resumed"
    resumed.mkdir()
    shutil.copytree(tmp_path / "whole" / "checkpoints", resumed / "checkpoints")
    assert run(*arguments, "--output_dir", resumed, "--resume", resumed / "checkpoints" / "step_000004") == 0
    assert [entry["step"] for entry in log_of(resumed)] == [5, 6]
    assert_same_weights(tmp_path / "whole", resumed)


def test_a_checkpoint_holds_only_what_is_trained(clip_path, tmp_path):
    assert run(*FAST, *SMALL, "--model", clip_path, "--checkpoint_steps", 4, "--output_dir", tmp_path / "out") == 0
    state = load_file(tmp_path / "out" / "checkpoints" / "step_000004" / "trained.safetensors")
    assert all(name.startswith(("model.token_mapper", "model.semantic_injection")) for name in state)
    assert any("running_mean" in name for name in state)


def test_an_unfinished_checkpoint_is_refused(clip_path, tmp_path, capsys):
    (tmp_path / "half").mkdir()
    assert run(*FAST, "--model", clip_path, "--output_dir", tmp_path / "out", "--resume", tmp_path / "half") == 1
    assert "is not a checkpoint of a training run" in capsys.readouterr().err


def test_a_full_output_folder_is_left_alone(tmp_path, capsys):
    (tmp_path / "mine.txt").write_text("precious")
    assert run("--output_dir", tmp_path) == 1
    assert "exists and is not empty" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_mapper_only_and_gradient_checkpointing(clip_path, tmp_path):
    common = [*FAST, "--mapper_hidden_size", 16, "--model", clip_path, "--mapper_only"]
    assert run(*common, "--output_dir", tmp_path / "a") == 0
    assert run(*common, "--output_dir", tmp_path / "b", "--gradient_checkpointing") == 0
    assert not [name for name in weights_of(tmp_path / "a") if "injection" in name]
    first, second = weights_of(tmp_path / "a"), weights_of(tmp_path / "b")
    for name in first:
        torch.testing.assert_close(first[name], second[name], atol=1e-4, rtol=1e-3)


def test_mixed_precision(clip_path, tmp_path):
    assert run(*FAST, *SMALL, "--model", clip_path, "--output_dir", tmp_path / "out", "--mixed_precision", "bf16") == 0
    assert {tensor.dtype for tensor in weights_of(tmp_path / "out").values()} <= {torch.float16, torch.float32, torch.int64}


def test_interruption(clip_path, tmp_path, capsys, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("m2c.training.trainer._Run.fit", interrupt)
    assert run(*FAST, *SMALL, "--model", clip_path, "--output_dir", tmp_path / "out") == 130
    assert "interrupted" in capsys.readouterr().err


@pytest.fixture
def pairs_folder(tmp_path):
    return write_image_folder(scenes.pairs(10), tmp_path / "pairs")


def on_folder(folder, clip_path, tmp_path, *arguments) -> int:
    fast = ["--max_steps", 2, "--batch_size", 4, *SMALL]
    return run(*fast, "--dataset", folder, "--model", clip_path, "--output_dir", tmp_path / "out", *arguments)


def test_image_folder(pairs_folder, clip_path, tmp_path):
    assert on_folder(pairs_folder, clip_path, tmp_path) == 0
    record = json.loads((tmp_path / "out" / "training.json").read_text())
    assert record["training_rows"] == 10 and record["config"]["learning_rate"] == 1e-4


def test_other_column_names_and_paths_of_images(pairs_folder, clip_path, tmp_path):
    """A parquet-like data set saved by `save_to_disk` that holds paths instead of images."""
    paths = [str(path) for path in sorted((pairs_folder / "image").iterdir())]
    Dataset.from_dict({"jpg": paths, "txt": ["a red circle"] * 10, "extra": [0] * 10}).save_to_disk(tmp_path / "saved")
    assert on_folder(tmp_path / "saved", clip_path, tmp_path, "--image_column", "jpg", "--caption_column", "txt") == 0


def test_triplets_of_a_folder(stage1, tmp_path):
    folder = write_image_folder(scenes.triplets(8), tmp_path / "triplets")
    assert on_folder(folder, stage1, tmp_path, "--stage", 2) == 0


def test_a_missing_column_is_named(pairs_folder, clip_path, tmp_path, capsys):
    assert on_folder(pairs_folder, clip_path, tmp_path, "--caption_column", "text") == 1
    message = capsys.readouterr().err
    assert "has no column 'text'; it has caption, image" in message or "has no column 'text'; it has image, caption" in message
    assert "--caption_column" in message


def test_an_unreadable_image_is_named(pairs_folder, clip_path, tmp_path, capsys):
    (pairs_folder / "image" / "000007.png").write_bytes(b"not an image")
    assert on_folder(pairs_folder, clip_path, tmp_path, "--cached_views", 1) == 1
    message = capsys.readouterr().err
    assert "row 7 of the data set has an unreadable image in column 'image'" in message and "000007.png" in message


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--dataset", "no/such-set"], "no such folder, and it was not found on the Hub"),
        (["--batch_size", 1000], "--batch_size 1000 times 1 processes is more than the 10 rows"),
        (["--validation_size", 10], "--validation_size 10 leaves nothing of 10 rows"),
        (["--image_column", "caption"], "unreadable image"),
        (["--model", "no/such-model"], "cannot load a CLIP from 'no/such-model'"),
        (["--learning_rate", -1], "--learning_rate must be positive"),
    ],
)
def test_wrong_arguments_are_named(pairs_folder, clip_path, tmp_path, capsys, arguments, message):
    assert on_folder(pairs_folder, clip_path, tmp_path, *arguments) == 1
    assert message in capsys.readouterr().err


def test_grey_and_transparent_images_can_be_trained_on(clip_path, tmp_path):
    folder = tmp_path / "mixed"
    folder.mkdir()
    rows = []
    for index, mode in enumerate(["L", "RGBA", "P", "CMYK", "I;16", "1"]):
        name = f"{index}.{'tiff' if mode == 'CMYK' else 'png'}"
        Image.new(mode, (30 + index, 40)).save(folder / name)
        rows.append({"file_name": name, "caption": "a red circle"})
    (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert on_folder(folder, clip_path, tmp_path) == 0


def test_train_returns_what_it_saved(clip_path, tmp_path):
    config = TrainingConfig(
        model=str(clip_path), output_dir=str(tmp_path / "out"), max_steps=2, batch_size=4, max_samples=8, mapper_hidden_size=16
    )
    model, processor = train(config)
    inputs = processor(images=Image.new("RGB", (9, 9)), text="is red", return_tensors="pt")
    with torch.no_grad():
        saved = AutoModel.from_pretrained(tmp_path / "out").get_composed_features(**inputs).pooler_output
        torch.testing.assert_close(model.get_composed_features(**inputs).pooler_output, saved, atol=1e-5, rtol=1e-5)
