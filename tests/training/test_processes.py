"""Two processes with batch n take the steps of one with batch 2n, in both stages."""

import json
import os
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import train_accelerate
from m2c.data import scenes
from m2c.data.image_folder import write_image_folder

from .runs import assert_same_log, assert_same_weights, end_after_three_steps, log_of


SCRIPT = Path(train_accelerate.__file__)
FSDP = Path(__file__).parents[2] / "docs" / "accelerate" / "fsdp.yaml"
FSDP_LAUNCHER = ["-m", "accelerate.commands.launch", "--config_file", FSDP, "--num_processes", 2, "--main_process_port", 0]
ENVIRONMENT = {**os.environ, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(SCRIPT.parent)}
STAGE_1 = ["--max_samples", 40, "--max_steps", 5, "--log_steps", 1, "--mapper_hidden_size", 16, "--injection_hidden_size", 16]
STAGE_2 = [
    "--stage",
    2,
    "--max_samples",
    40,
    "--max_steps",
    5,
    "--log_steps",
    1,
    "--lora_rank",
    4,
    "--reference_negatives",
    True,
]

TEXT_ONLY = ["--objective", "text_only", "--max_samples", 40, "--max_steps", 5, "--log_steps", 1]


def train_alone(*arguments) -> None:
    assert train_accelerate.main([*map(str, arguments)]) == 0


def train_in_two_processes(*arguments) -> None:
    done = launch(*arguments)
    assert done.returncode == 0, done.stderr


def launch(*arguments) -> subprocess.CompletedProcess:
    return run(sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", 2, SCRIPT, *arguments)


def train_under_fsdp(folder: Path, *arguments) -> None:
    """In two processes, which leave what they held of each weight in `folder`."""
    done = run(sys.executable, *FSDP_LAUNCHER, Path(__file__).with_name("sharded.py"), folder, *arguments)
    assert done.returncode == 0, done.stderr
    first, second = (torch.tensor(json.loads((folder / f"held_{rank}.json").read_text())) for rank in (0, 1))
    whole = first[:, -1:]
    assert torch.equal(first[:, :-1] + second[:, :-1], whole.expand(-1, 4)), "weight, gradient and both moments alike"
    assert (first[:, :-1].sum(dim=0) < 0.6 * whole.sum()).all()


def run(*command) -> subprocess.CompletedProcess:
    return subprocess.run([*map(str, command)], capture_output=True, text=True, timeout=240, env=ENVIRONMENT)


def test_a_dry_run_is_one_run_of_both_and_speaks_once(tmp_path):
    done = launch(*STAGE_1, "--dry_run", "--batch_size", 4, "--output_dir", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stdout.splitlines() if line]
    assert len(lines) == len(set(lines)) > 3, done.stdout
    assert "2 processes" in done.stdout


def assert_same_run(one: Path, two: Path, weights: str) -> None:
    assert json.loads((one / "training.json").read_text())["processes"] == 1
    assert json.loads((two / "training.json").read_text())["processes"] == 2
    for alone, together in zip(log_of(one), log_of(two), strict=True):
        assert (alone.pop("seconds", None) is None) == (together.pop("seconds", None) is None)
        assert together == pytest.approx(alone, abs=1e-5, rel=0)
    first, second = load_file(one / weights), load_file(two / weights)
    assert first.keys() == second.keys()
    for name, tensor in first.items():
        torch.testing.assert_close(second[name].float(), tensor.float(), atol=1e-5, rtol=0, msg=name)


@pytest.fixture
def stage1(clip_path, tmp_path) -> Path:
    train_alone(*STAGE_1, "--model", clip_path, "--batch_size", 8, "--output_dir", tmp_path / "stage1")
    return tmp_path / "stage1"


CHUNKS = ["--chunk_size", 3]
MEASURED = ["--validation_size", 6, "--eval_steps", 2, "--early_stopping", 9, "--checkpoint_steps", 3]


@pytest.mark.parametrize(("views", "chunks"), [(0, []), pytest.param(1, [], marks=pytest.mark.slow), (0, CHUNKS)])
def test_stage_1(clip_path, tmp_path, views, chunks):
    """With dropout and batch norm; on images encoded in every step and before training; plain and with GradCache."""
    arguments = [*STAGE_1, "--model", clip_path, "--cached_views", views, "--learning_rate", 1e-3]
    train_alone(*arguments, "--batch_size", 8, "--output_dir", tmp_path / "one")
    train_in_two_processes(*arguments, *chunks, "--batch_size", 4, "--output_dir", tmp_path / "two")
    assert_same_run(tmp_path / "one", tmp_path / "two", "model.safetensors")


@pytest.mark.parametrize("chunks", [[], CHUNKS])
def test_stage_2(stage1, tmp_path, chunks):
    arguments = [*STAGE_2, "--model", stage1, "--learning_rate", 1e-3]
    train_alone(*arguments, "--batch_size", 8, "--output_dir", tmp_path / "one")
    train_in_two_processes(*arguments, *chunks, "--batch_size", 4, "--output_dir", tmp_path / "two")
    assert_same_run(tmp_path / "one", tmp_path / "two", "adapter_model.safetensors")


@pytest.mark.slow
@pytest.mark.parametrize(("views", "chunks"), [(0, []), (1, CHUNKS)])
def test_text_only(clip_path, tmp_path, views, chunks):
    """With dropout and noise, on captions of different lengths."""
    arguments = [*TEXT_ONLY, "--model", clip_path, "--cached_views", views, "--learning_rate", 1e-3]
    train_alone(*arguments, "--batch_size", 8, "--output_dir", tmp_path / "one")
    train_in_two_processes(*arguments, *chunks, "--batch_size", 4, "--output_dir", tmp_path / "two")
    assert_same_run(tmp_path / "one", tmp_path / "two", "model.safetensors")


@pytest.mark.slow
def test_a_row_that_one_process_cannot_read_ends_both_with_a_checkpoint(clip_path, tmp_path):
    """And once it is mended they end as if nothing had been wrong."""
    folder = write_image_folder(scenes.pairs(20), tmp_path / "pairs")
    arguments = [*STAGE_1[2:], "--model", clip_path, "--dataset", folder, "--output_dir"]
    train_alone(*arguments, tmp_path / "one", "--batch_size", 8)
    first, second = (torch.randperm(20, generator=torch.Generator().manual_seed(epoch)).tolist() for epoch in range(2))
    row = next(row for row in second[4:8] if row not in first[:16])  # of the third step, on the second process
    image = folder / "image" / f"{row:06d}.png"
    content = image.read_bytes()
    image.write_bytes(b"not an image")
    together = [*arguments, tmp_path / "two", "--batch_size", 4, "--resume"]
    done = launch(*together)
    assert done.returncode != 0
    assert done.stderr.count(f"error: row {row} of the data set has an unreadable image") == 2, "by both"
    assert [path.name for path in (tmp_path / "two" / "checkpoints").iterdir()] == ["step_000002"]
    image.write_bytes(content)
    train_in_two_processes(*together)
    assert_same_run(tmp_path / "one", tmp_path / "two", "model.safetensors")


def assert_same_checkpoint(one: Path, two: Path) -> None:
    """But for the random states of a second process."""
    names = {path.name for path in two.iterdir()} - {"random_states_1.pkl"}
    assert names == {path.name for path in one.iterdir()}
    first, second = (torch.load(folder / "optimizer.bin", weights_only=True) for folder in (one, two))
    assert first["param_groups"] == second["param_groups"]
    torch.testing.assert_close(second["state"], first["state"], atol=1e-5, rtol=0)
    for name in ("trained.safetensors", "best.safetensors"):
        torch.testing.assert_close(load_file(two / name), load_file(one / name), atol=1e-5, rtol=0)


@pytest.mark.slow
def test_stage_1_under_fsdp(clip_path, tmp_path):
    """With all that needs the weights whole: measurements, the best weights, checkpoints, the model that is saved."""
    arguments = [*STAGE_1, *MEASURED, "--model", clip_path, "--learning_rate", 1e-3]
    train_alone(*arguments, "--batch_size", 8, "--output_dir", tmp_path / "one")
    train_under_fsdp(tmp_path, *arguments, "--batch_size", 4, "--output_dir", tmp_path / "two")
    assert_same_run(tmp_path / "one", tmp_path / "two", "model.safetensors")
    assert_same_checkpoint(*(tmp_path / name / "checkpoints" / "step_000003" for name in ("one", "two")))


@pytest.mark.slow
def test_stage_2_under_fsdp(stage1, tmp_path):
    arguments = [*STAGE_2, *MEASURED, "--model", stage1, "--learning_rate", 1e-3, "--gradient_checkpointing", True]
    train_alone(*arguments, "--batch_size", 8, "--output_dir", tmp_path / "one")
    train_under_fsdp(tmp_path, *arguments, "--batch_size", 4, "--output_dir", tmp_path / "two")
    assert_same_run(tmp_path / "one", tmp_path / "two", "adapter_model.safetensors")
    assert_same_checkpoint(*(tmp_path / name / "checkpoints" / "step_000003" for name in ("one", "two")))


@pytest.mark.slow
@pytest.mark.parametrize(("stage", "weights"), [(1, "model.safetensors"), (2, "adapter_model.safetensors")])
def test_chunks_under_fsdp(clip_path, stage1, tmp_path, stage, weights):
    start = [*STAGE_1, "--model", clip_path] if stage == 1 else [*STAGE_2, "--model", stage1]
    arguments = [*start, "--learning_rate", 1e-3]
    train_alone(*arguments, "--batch_size", 8, "--output_dir", tmp_path / "one")
    train_under_fsdp(tmp_path, *arguments, *CHUNKS, "--batch_size", 4, "--output_dir", tmp_path / "two")
    assert_same_run(tmp_path / "one", tmp_path / "two", weights)


@pytest.mark.slow
@pytest.mark.parametrize(("stage", "weights"), [(1, "model.safetensors"), (2, "adapter_model.safetensors")])
def test_resumed_under_fsdp_is_uninterrupted(clip_path, stage1, tmp_path, stage, weights):
    """And under DDP, which finds in the checkpoint what it would have written itself."""
    start = [*STAGE_1, "--model", clip_path] if stage == 1 else [*STAGE_2, "--model", stage1]
    arguments = [*start, *MEASURED, "--learning_rate", 1e-3, "--batch_size", 4]
    train_under_fsdp(tmp_path, *arguments, "--output_dir", tmp_path / "whole")
    for name, train in (("fsdp", partial(train_under_fsdp, tmp_path)), ("ddp", train_in_two_processes)):
        checkpoint = tmp_path / name / "checkpoints" / "step_000003"
        shutil.copytree(tmp_path / "whole" / "checkpoints" / "step_000003", checkpoint)
        train(*arguments, "--output_dir", tmp_path / name, "--resume", checkpoint)
    whole, fsdp, ddp = (load_file(tmp_path / name / weights) for name in ("whole", "fsdp", "ddp"))
    assert [entry["step"] for entry in log_of(tmp_path / "fsdp")] == [4, 4, 5, 5]
    torch.testing.assert_close(fsdp, whole, atol=0, rtol=0)
    torch.testing.assert_close(ddp, whole, atol=1e-5, rtol=0)


@pytest.mark.slow
def test_asked_to_end_under_fsdp_a_run_saves_and_goes_on_from_there(clip_path, tmp_path):
    arguments = [*STAGE_1, "--model", clip_path, "--max_steps", 40, "--batch_size", 4, "--resume", "--output_dir"]
    whole, out = tmp_path / "whole", tmp_path / "out"
    train_under_fsdp(tmp_path, *arguments, whole)
    assert 3 <= end_after_three_steps([sys.executable, *FSDP_LAUNCHER, SCRIPT, *arguments, out], out, ENVIRONMENT) < 40
    train_under_fsdp(tmp_path, *arguments, out)
    assert_same_log(whole, out)
    assert_same_weights(whole, out)
