"""Two processes with batch n take the steps of one with batch 2n, in both stages."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import train_accelerate
from m2c.data import scenes
from m2c.data.image_folder import write_image_folder


SCRIPT = Path(train_accelerate.__file__)
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
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", SCRIPT]
    environment = {**os.environ, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    command = [*map(str, (*launcher, *arguments))]
    return subprocess.run(command, capture_output=True, text=True, timeout=240, env=environment)


def log_of(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def assert_same_run(one: Path, two: Path, weights: str) -> None:
    assert json.loads((one / "training.json").read_text())["processes"] == 1
    assert json.loads((two / "training.json").read_text())["processes"] == 2
    for alone, together in zip(log_of(one), log_of(two), strict=True):
        del alone["seconds"], together["seconds"]
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


@pytest.mark.parametrize(("views", "chunks"), [(0, []), (1, []), (0, CHUNKS)])
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
