"""Whole runs of the training script on tiny models, and what they leave."""

import json
import re
import subprocess
import time
from pathlib import Path

import torch
from safetensors.torch import load_file

import train_accelerate


FAST = ["--max_steps", "6", "--batch_size", "4", "--max_samples", "14", "--log_steps", "1"]
SMALL = ["--mapper_hidden_size", "16", "--injection_hidden_size", "16"]


def run(*arguments) -> int:
    return train_accelerate.main([*map(str, arguments)])


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


def assert_same_log(a, b) -> None:
    first, second = log_of(a), log_of(b)
    for entry in (*first, *second):
        entry.pop("seconds", None)
    assert first == second


def on_folder(folder, clip_path, tmp_path, *arguments) -> int:
    fast = ["--max_steps", 2, "--batch_size", 4, *SMALL]
    return run(*fast, "--dataset", folder, "--model", clip_path, "--output_dir", tmp_path / "out", *arguments)


def end_after_three_steps(command: list, out: Path, environment: dict[str, str]) -> int:
    """Starts a run of several processes, and asks their launcher to end when it has taken three steps. Returns the step that
    it ended at."""
    log = out / "log.jsonl"
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    with subprocess.Popen([*map(str, command)], **pipes, env=environment) as launcher:
        while launcher.poll() is None and not (log.exists() and len(log.read_text().splitlines()) >= 3):
            time.sleep(0.01)
        launcher.terminate()
        printed = launcher.communicate(timeout=240)[0]
    assert launcher.returncode != 0, printed
    return int(re.search(r"ended at step (\d+), which is saved; go on with --resume", printed)[1])
