"""How a run was started can be read afterwards, and names no more of the machine than it must."""

import json
import os
import shlex
import socket
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType

from m2c.training import TrainingConfig
from m2c.training.records import run_record as module
from m2c.training.records.run_record import git_state, public_config, record_start
from m2c.versions import versions


@pytest.fixture
def config(tmp_path) -> TrainingConfig:
    (tmp_path / "out").mkdir()
    return TrainingConfig(output_dir=str(tmp_path / "out"), model="scenes", max_steps=7)


def starts_of(config: TrainingConfig) -> list[dict]:
    return json.loads(Path(config.output_dir, "run.json").read_text(encoding="utf-8"))


def test_every_start_is_recorded(config, monkeypatch):
    monkeypatch.setattr(sys, "orig_argv", ["python", "train_accelerate.py", "--output_dir", "a b", "--max_steps", "7"])
    accelerator = Accelerator(cpu=True)
    for name in [name for name in os.environ if name.startswith(module.LAUNCHER)]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    record_start(config, accelerator)
    (first,) = starts_of(config)
    assert shlex.split(first["command"]) == sys.orig_argv
    assert datetime.fromisoformat(first["started"]).tzinfo == UTC
    assert first["config"]["max_steps"] == 7 and first["config"]["learning_rate"] == 8e-3, "with presets filled in"
    assert TrainingConfig(**first["config"]) == config
    assert first["versions"] == versions()
    assert (first["processes"], first["devices"]) == (1, ["cpu"]) and first["threads"] >= 1
    distributed = first["distributed"]
    assert distributed["type"] == "NO" and distributed["deepspeed"] is None
    assert distributed["environment"] == {"ACCELERATE_USE_FSDP": "true", "OMP_NUM_THREADS": "3"}, "what a launcher was told"
    config.resume = "latest"
    record_start(config, accelerator, Path(config.output_dir, "checkpoints", "step_000004"))
    assert starts_of(config)[0] == first
    assert [start["config"]["resume"] for start in starts_of(config)] == [None, "latest"]
    assert [start["resumed_from"] for start in starts_of(config)] == [None, "step_000004"]


def test_nothing_but_command_and_configuration_names_this_machine(config, tmp_path):
    record_start(config, Accelerator(cpu=True))
    (start,) = starts_of(config)
    del start["command"], start["config"]
    for name in (socket.gethostname(), str(tmp_path), str(Path.home()), str(Path.cwd())):
        assert name not in json.dumps(start)


def test_what_is_published_names_no_place(tmp_path):
    (tmp_path / "clip").mkdir()
    places = {name: str(tmp_path / name) for name in ("output_dir", "resume", "cache_dir", "validation_root")}
    config = TrainingConfig(
        model=str(tmp_path / "clip"), dataset="my/pairs", validation_benchmark="cirr", max_steps=7, **places
    )
    public = public_config(config)
    assert str(tmp_path) not in json.dumps(public)
    assert (public["model"], public["dataset"], public["max_steps"]) == ("clip", "my/pairs", 7)
    assert public["validation_benchmark"] == "cirr"


def test_a_full_disk_leaves_the_earlier_record(config, monkeypatch):
    accelerator = Accelerator(cpu=True)
    record_start(config, accelerator)
    before, write = starts_of(config), Path.write_text

    def full(self, text, **kwargs):
        write(self, text[:50], **kwargs)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(OSError) as raised:
        record_start(config, accelerator)
    path = Path(config.output_dir, "run.json")
    reason = "(No space left on device). Make room there, and go on with --resume"
    assert str(raised.value) == f"{path} could not be written {reason}"
    assert starts_of(config) == before


@pytest.mark.parametrize("content", ["", '[{"command": ', "{}"])
def test_a_file_that_holds_no_starts_is_an_error_and_stays(config, content):
    path = Path(config.output_dir, "run.json")
    path.write_text(content)
    with pytest.raises(ValueError, match=r"run\.json .*move it away"):
        record_start(config, Accelerator(cpu=True))
    assert path.read_text() == content


@pytest.fixture
def checkout(tmp_path):
    """A repository with one commit, and a way to run git in it."""
    folder = tmp_path / "checkout"
    (folder / "package").mkdir(parents=True)
    (folder / "package" / "code.py").write_text("1")

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(folder), "-c", "user.name=a", "-c", "user.email=a@b", *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    git("init", "--quiet")
    git("add", ".")
    git("commit", "--quiet", "--message", "first")
    return folder, git


def test_git_state_is_the_commit_and_whether_code_differs_from_it(checkout):
    folder, git = checkout
    commit = git("rev-parse", "HEAD")
    assert git_state(folder / "package") == {"commit": commit, "dirty": False}
    (folder / "output").mkdir()
    (folder / "output" / "log.jsonl").write_text("{}")
    assert git_state(folder / "package") == {"commit": commit, "dirty": False}, "what a run writes is no change of code"
    (folder / "package" / "code.py").write_text("2")
    assert git_state(folder / "package") == {"commit": commit, "dirty": True}


def test_without_a_checkout_of_its_own_there_is_no_git_state(checkout, tmp_path, monkeypatch):
    folder, _ = checkout
    installed = folder / ".venv" / "lib" / "m2c"
    installed.mkdir(parents=True)
    (installed / "code.py").write_text("1")
    assert git_state(installed) is None, "the checkout is of another project"
    (tmp_path / "elsewhere").mkdir()
    assert git_state(tmp_path / "elsewhere") is None
    monkeypatch.setenv("PATH", str(tmp_path))
    assert git_state(folder / "package") is None, "no git"


def test_the_record_carries_the_state_of_this_code(config, monkeypatch):
    monkeypatch.setattr(module, "git_state", lambda: {"commit": "abc", "dirty": True})
    record_start(config, Accelerator(cpu=True))
    assert starts_of(config)[0]["git"] == {"commit": "abc", "dirty": True}


def test_all_processes_take_part_and_the_main_one_writes(config, monkeypatch):
    gathered = []
    monkeypatch.setattr(module, "gather_object", lambda names: gathered.append(names) or 2 * names)
    deepspeed = SimpleNamespace(deepspeed_config={"zero_optimization": {"stage": 2}})
    process = SimpleNamespace(
        device=torch.device("cpu"),
        num_processes=2,
        is_main_process=False,
        distributed_type=DistributedType.DEEPSPEED,
        state=SimpleNamespace(deepspeed_plugin=deepspeed),
    )
    record_start(config, process)
    assert gathered == [["cpu"]] and not Path(config.output_dir, "run.json").exists()
    process.is_main_process = True
    record_start(config, process)
    (start,) = starts_of(config)
    assert (start["processes"], start["devices"]) == (2, ["cpu", "cpu"])
    distributed = start["distributed"]
    assert distributed["type"] == "DEEPSPEED" and distributed["deepspeed"] == deepspeed.deepspeed_config
