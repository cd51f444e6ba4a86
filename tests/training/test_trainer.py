"""Whole runs of the training script on tiny models, as users start them."""

import json
import shutil

import pytest
import torch
from datasets import Dataset
from PIL import Image
from safetensors.torch import load_file
from transformers import AutoModel
from transformers.models.clip.modeling_clip import CLIPAttention

import train_accelerate
from m2c.data import scenes
from m2c.data.image_folder import write_image_folder
from m2c.training import TrainingConfig, train
from m2c.training.trainer import _Run


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
        assert run(*FAST, *start, "--cached_views", 1, "--output_dir", tmp_path / name, *flags) == 0
        counts.append(len(calls))
    # Four layers in each of six steps, and in stage 2 two prompts.
    assert counts[1] - counts[0] == 6 * 4 * stage
    plain, checkpointed = weights_of(tmp_path / "plain"), weights_of(tmp_path / "checkpointed")
    for name in plain:
        torch.testing.assert_close(plain[name], checkpointed[name], atol=1e-4, rtol=1e-3)


def test_mixed_precision(clip_path, tmp_path):
    assert run(*FAST, *SMALL, "--model", clip_path, "--output_dir", tmp_path / "out", "--mixed_precision", "bf16") == 0
    assert {tensor.dtype for tensor in weights_of(tmp_path / "out").values()} <= {torch.float16, torch.float32, torch.int64}


def test_interruption_says_where_to_go_on(clip_path, tmp_path, capsys, monkeypatch):
    log = _Run._log

    def interrupt_at_step_5(self, *args):
        if self.step == 5:
            raise KeyboardInterrupt
        return log(self, *args)

    arguments = [*FAST, *SMALL, "--model", clip_path]
    checkpoints = ["--checkpoint_steps", 2]
    assert run(*arguments, *checkpoints, "--output_dir", tmp_path / "whole") == 0
    monkeypatch.setattr(_Run, "_log", interrupt_at_step_5)
    assert run(*arguments, "--output_dir", tmp_path / "none") == 130
    assert "no checkpoint was written" in capsys.readouterr().err
    out = tmp_path / "out"
    assert run(*arguments, *checkpoints, "--output_dir", out) == 130
    assert f"go on with --resume {out}/checkpoints/step_000004" in capsys.readouterr().err
    monkeypatch.setattr(_Run, "_log", log)
    assert run(*arguments, *checkpoints, "--output_dir", out, "--resume", out / "checkpoints" / "step_000004") == 0
    assert [entry["step"] for entry in log_of(out)] == [1, 2, 3, 4, 5, 6]
    assert_same_weights(tmp_path / "whole", out)


def test_a_checkpoint_of_another_run_is_refused(clip_path, tmp_path, capsys):
    arguments = [*FAST, *SMALL, "--model", clip_path, "--output_dir", tmp_path / "out"]
    assert run(*arguments, "--checkpoint_steps", 4) == 0
    resume = ["--resume", tmp_path / "out" / "checkpoints" / "step_000004"]
    assert run(*arguments, *resume, "--seed", 3, "--learning_rate", 1e-5) == 1
    assert "is of another run: learning_rate was 0.008, is 1e-05; seed was 0, is 3" in capsys.readouterr().err
    for name in ("trained.safetensors", "optimizer.bin"):
        broken = resume[1] / name
        broken.write_bytes(broken.read_bytes()[:50])
        assert run(*arguments, *resume) == 1
        assert "step_000004 cannot be read" in capsys.readouterr().err


def test_resume_overwrites_no_other_folder(clip_path, tmp_path, capsys):
    arguments = [*FAST, *SMALL, "--model", clip_path]
    assert run(*arguments, "--checkpoint_steps", 4, "--output_dir", tmp_path / "out") == 0
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "README.md").write_text("mine")
    resume = ["--resume", tmp_path / "out" / "checkpoints" / "step_000004"]
    assert run(*arguments, "--output_dir", tmp_path / "precious", *resume) == 1
    assert "exists and is not empty" in capsys.readouterr().err
    assert (tmp_path / "precious" / "README.md").read_text() == "mine"


def test_stage_2_needs_stage_1(clip_path, tmp_path, capsys):
    assert run(*FAST, "--stage", 2, "--model", clip_path, "--output_dir", tmp_path / "out") == 1
    assert "stage 2 starts from what stage 1 wrote" in capsys.readouterr().err


def test_an_m2c_checkpoint_keeps_its_configuration(stage1, tmp_path, capsys):
    assert run(*FAST, "--model", stage1, "--output_dir", tmp_path / "out", "--mapper_only") == 1
    assert "is an M2C checkpoint with injection_layers [0, 2], not []" in capsys.readouterr().err


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


@pytest.mark.parametrize("arguments", [["--cached_views", 1], [], ["--num_workers", 1]])
def test_an_unreadable_image_is_named(pairs_folder, clip_path, tmp_path, capsys, arguments):
    (pairs_folder / "image" / "000007.png").write_bytes(b"not an image")
    assert on_folder(pairs_folder, clip_path, tmp_path, "--max_steps", 4, *arguments) == 1
    message = capsys.readouterr().err
    assert "error: row 7 of the data set has an unreadable image in column 'image'" in message
    assert "000007.png" in message and "Traceback" not in message


def test_one_column_for_two_purposes_and_no_caption_at_all(stage1, tmp_path):
    """The modification text can stand in for a missing caption; without soft alignment none is needed."""
    rows = scenes.triplets(8).remove_columns("reference_caption")
    rows.save_to_disk(tmp_path / "triplets")
    arguments = ["--max_steps", 2, "--batch_size", 4, "--stage", 2, "--model", stage1, "--dataset", tmp_path / "triplets"]
    assert run(*arguments, "--output_dir", tmp_path / "a", "--reference_caption_column", "modification") == 0
    assert run(*arguments, "--output_dir", tmp_path / "b", "--soft_weight", 0) == 0
    assert run(*arguments, "--output_dir", tmp_path / "c") == 1
    assert run(*arguments, "--output_dir", tmp_path / "d", "--soft_weight", 0, "--target_column", "reference") == 1


def test_captions_must_be_texts(clip_path, tmp_path, capsys):
    rows = scenes.pairs(8).map(lambda row: {"captions": [row["caption"]]})
    rows.save_to_disk(tmp_path / "pairs")
    assert on_folder(tmp_path / "pairs", clip_path, tmp_path, "--caption_column", "captions") == 1
    assert "column 'captions'" in capsys.readouterr().err


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
