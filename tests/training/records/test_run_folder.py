"""Whose an output folder is, and how a run goes on in it."""

import json
import shutil

import pytest
import torch
from filelock import FileLock
from safetensors.torch import load_file, save_file

import train_accelerate
from m2c.data import scenes
from m2c.data.image_folder import write_image_folder
from m2c.training import train

from ..runs import FAST, SMALL, assert_same_log, assert_same_weights, log_of, on_folder, run, weights_of


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


def test_an_unfinished_checkpoint_is_refused(clip_path, tmp_path, capsys):
    (tmp_path / "half").mkdir()
    assert run(*FAST, "--model", clip_path, "--output_dir", tmp_path / "out", "--resume", tmp_path / "half") == 1
    assert "is not a checkpoint of a training run" in capsys.readouterr().err


def test_a_full_output_folder_is_left_alone(tmp_path, capsys):
    (tmp_path / "mine.txt").write_text("precious")
    assert run("--output_dir", tmp_path) == 1
    assert "exists and is not empty" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_resume_before_there_is_a_checkpoint_begins(clip_path, tmp_path, capsys):
    """So that the command that a cluster starts again is always the same."""
    arguments = [*FAST, *SMALL, "--model", clip_path]
    assert run(*arguments, "--output_dir", tmp_path / "whole") == 0
    out = tmp_path / "deep" / "out"
    assert run(*arguments, "--output_dir", out, "--max_samples", 5, "--resume") == 0
    assert "there is no checkpoint" in capsys.readouterr().out
    (out / "training.json").unlink()
    assert run(*arguments, "--output_dir", out, "--resume") == 0
    assert_same_weights(tmp_path / "whole", out)
    assert_same_log(tmp_path / "whole", out)


def test_resuming_a_finished_run_changes_nothing(clip_path, stage1, tmp_path, capsys):
    arguments = [*FAST, "--stage", 2, "--model", stage1, "--output_dir", tmp_path / "out", "--checkpoint_steps", 4]
    assert run(*arguments) == 0
    (tmp_path / "out" / "README.md").write_text("my own words")
    before = {path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert run(*arguments, "--resume") == 0
    assert "holds the finished run; nothing is left to do" in capsys.readouterr().out
    assert {path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()} == before
    assert run(*arguments, "--resume", "--learning_rate", 1e-5) == 1
    message = "holds a finished run of other settings: learning_rate was 0.003, is 1e-05; choose another --output_dir"
    assert message in capsys.readouterr().err
    model, _ = train(train_accelerate.parse_args([*map(str, arguments), "--resume"]))
    assert torch.equal(
        dict(model.named_parameters())["composing_encoder.layers.0.mlp.fc1.lora_B.default.weight"],
        weights_of(tmp_path / "out")["base_model.model.composing_encoder.layers.0.mlp.fc1.lora_B.weight"],
    )


def test_a_checkpoint_of_another_run_is_refused(clip_path, tmp_path, capsys):
    arguments = [*FAST, *SMALL, "--model", clip_path, "--output_dir", tmp_path / "out"]
    assert run(*arguments, "--checkpoint_steps", 4) == 0
    checkpoint = tmp_path / "out" / "checkpoints" / "step_000004"
    (tmp_path / "out" / "training.json").unlink()
    for resume in (["--resume"], ["--resume", checkpoint]):
        assert run(*arguments, *resume, "--seed", 3, "--learning_rate", 1e-5) == 1
        assert "is of another run: learning_rate was 0.008, is 1e-05; seed was 0, is 3" in capsys.readouterr().err


def test_a_checkpoint_of_other_rows_is_refused(pairs_folder, clip_path, tmp_path, capsys):
    assert on_folder(pairs_folder, clip_path, tmp_path) == 0
    (tmp_path / "out" / "training.json").unlink()
    shutil.copytree(pairs_folder / "image", tmp_path / "fewer")
    for path in (pairs_folder, tmp_path / "fewer"):
        shutil.rmtree(path)
    write_image_folder(scenes.pairs(9), pairs_folder)
    assert on_folder(pairs_folder, clip_path, tmp_path, "--resume") == 1
    assert "is of a run on 10 rows; now there are 9" in capsys.readouterr().err


FOUR_STEPS = ["--max_steps", 4, "--checkpoint_steps", 2, "--keep_checkpoints", 9]


def files_of(out) -> dict:
    return {path: path.read_bytes() for path in out.rglob("*") if path.is_file() and path.name != "run.json"}


def change_weights(clip_path, _) -> None:
    state = load_file(clip_path / "model.safetensors")
    state["visual_projection.weight"][0, 0] += 1
    save_file(state, clip_path / "model.safetensors", metadata={"format": "pt"})


def change_prompts(clip_path, _) -> None:
    (clip_path / "processor_config.json").unlink(missing_ok=True)
    settings = json.loads((clip_path / "preprocessor_config.json").read_text())
    (clip_path / "preprocessor_config.json").write_text(json.dumps({**settings, "image_mean": [0.1, 0.2, 0.3]}))


def change_caption(_, folder) -> None:
    metadata = folder / "metadata.jsonl"
    metadata.write_text(metadata.read_text().replace('"caption": "', '"caption": "another ', 1))


@pytest.mark.parametrize(
    ("change", "option"),
    [(change_weights, "--model"), (change_prompts, "--model"), (change_caption, "--dataset")],
)
def test_at_the_same_place_lies_something_else(clip_path, pairs_folder, tmp_path, capsys, change, option):
    """And then nothing is removed, not even when an earlier checkpoint is named."""
    assert on_folder(pairs_folder, clip_path, tmp_path, *FOUR_STEPS) == 0
    (tmp_path / "out" / "training.json").write_text("{}")
    before = files_of(tmp_path / "out")
    change(clip_path, pairs_folder)
    earlier = tmp_path / "out" / "checkpoints" / "step_000002"
    assert on_folder(pairs_folder, clip_path, tmp_path, *FOUR_STEPS, "--resume", earlier) == 1
    assert f"{earlier} is of another run: what {option} names is not what it was" in capsys.readouterr().err
    assert files_of(tmp_path / "out") == before


def test_model_and_data_may_move(clip_path, pairs_folder, tmp_path):
    arguments = [*FOUR_STEPS, "--cached_views", 0]
    assert on_folder(pairs_folder, clip_path, tmp_path, *arguments) == 0
    whole = tmp_path / "whole"
    shutil.copytree(tmp_path / "out", whole)
    (tmp_path / "out" / "training.json").unlink()
    shutil.rmtree(tmp_path / "out" / "checkpoints" / "step_000004")
    model, data = clip_path.rename(tmp_path / "elsewhere"), pairs_folder.rename(tmp_path / "another disk")
    assert on_folder(data, model, tmp_path, *arguments, "--resume") == 0
    assert_same_weights(whole, tmp_path / "out")
    assert_same_log(whole, tmp_path / "out")


def test_two_starts_of_a_run_do_not_meet(clip_path, pairs_folder, tmp_path, capsys):
    (tmp_path / "out").mkdir()
    with FileLock(tmp_path / "out" / ".lock"):
        assert on_folder(pairs_folder, clip_path, tmp_path, "--resume") == 1
        assert f"another run is at work in {tmp_path / 'out'}" in capsys.readouterr().err
    assert on_folder(pairs_folder, clip_path, tmp_path, "--resume") == 0, "a lock that nobody holds is none"
    assert not (tmp_path / "out" / ".lock").exists()


def test_a_damaged_checkpoint_gives_way_to_the_one_before(clip_path, tmp_path, capsys):
    arguments = [*FAST, *SMALL, "--model", clip_path, "--checkpoint_steps", 2]
    assert run(*arguments, "--output_dir", tmp_path / "whole") == 0
    out = tmp_path / "out"
    shutil.copytree(tmp_path / "whole", out)
    (out / "training.json").unlink()
    newest = out / "checkpoints" / "step_000006"
    weights = (newest / "optimizer.bin").read_bytes()
    (newest / "optimizer.bin").write_bytes(weights[: len(weights) // 2])
    assert run(*arguments, "--output_dir", out, "--resume", newest) == 1
    assert f"{newest} is not a checkpoint of a training run, or damaged: optimizer.bin" in capsys.readouterr().err
    assert run(*arguments, "--output_dir", out, "--resume") == 0
    assert f"warning: the checkpoint {newest} is damaged: optimizer.bin is not what was written" in capsys.readouterr().err
    assert_same_log(tmp_path / "whole", out)
    assert_same_weights(tmp_path / "whole", out)


def test_going_back_to_an_earlier_checkpoint(clip_path, tmp_path):
    arguments = [*FAST, *SMALL, "--model", clip_path, "--checkpoint_steps", 2]
    assert run(*arguments, "--output_dir", tmp_path / "whole") == 0
    shutil.copytree(tmp_path / "whole", tmp_path / "out")
    back = tmp_path / "out" / "checkpoints" / "step_000004"
    assert run(*arguments, "--output_dir", tmp_path / "out", "--resume", back) == 0
    assert_same_log(tmp_path / "whole", tmp_path / "out")
    assert_same_weights(tmp_path / "whole", tmp_path / "out")


def test_resume_overwrites_no_other_folder(clip_path, tmp_path, capsys):
    arguments = [*FAST, *SMALL, "--model", clip_path]
    assert run(*arguments, "--checkpoint_steps", 4, "--output_dir", tmp_path / "out") == 0
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "README.md").write_text("mine")
    resume = ["--resume", tmp_path / "out" / "checkpoints" / "step_000004"]
    assert run(*arguments, "--output_dir", tmp_path / "precious", *resume) == 1
    assert "exists and is not empty" in capsys.readouterr().err
    assert run(*arguments, "--output_dir", tmp_path / "precious", "--resume") == 1
    assert "exists and is not empty" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "precious").iterdir()] == ["README.md"]
    assert (tmp_path / "precious" / "README.md").read_text() == "mine"
