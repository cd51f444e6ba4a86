"""Runs that are killed, by kill -9 at any moment, and resumed: they end as if nothing had happened."""

import json
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import train_accelerate

from .runs import assert_same_log, assert_same_weights, end_after_three_steps, log_of


REPOSITORY = Path(train_accelerate.__file__).parent
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true", "PYTHONPATH": str(REPOSITORY)}
LAUNCHER = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
SMALL = ["--batch_size", 4, "--max_samples", 14, "--log_steps", 1]
ENDED, KILLED = [0], [-signal.SIGKILL]


@pytest.fixture(scope="module")
def lives():
    """Runs the script with one life for each death, and one more; returns how they ended."""
    command = [sys.executable, Path(__file__).with_name("lives.py")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=ENVIRONMENT) as process:

        def live(folder: Path, arguments: list, deaths: list[dict] = (), processes: int = 1) -> list[list[int]]:
            run = {"folder": str(folder), "arguments": [*map(str, arguments)], "deaths": list(deaths), "processes": processes}
            process.stdin.write(json.dumps(run) + "\n")
            process.stdin.flush()
            return json.loads(process.stdout.readline())

        yield live
        process.stdin.close()


def assert_same_run(one: Path, other: Path) -> None:
    assert [entry["step"] for entry in log_of(one)] == sorted({entry["step"] for entry in log_of(one)})
    assert_same_log(one, other)
    names = {path.name for path in one.iterdir()}
    assert names == {path.name for path in other.iterdir()}
    assert {path.name for path in (one / "checkpoints").iterdir()} == {path.name for path in (other / "checkpoints").iterdir()}
    assert not list(other.rglob("*.partial"))
    for name in names:
        if name.endswith(".safetensors"):
            first, second = load_file(one / name), load_file(other / name)
            assert first.keys() == second.keys()
            assert all(torch.equal(tensor, second[key]) for key, tensor in first.items()), name
    assert (one / "README.md").read_text() == (other / "README.md").read_text()


@pytest.fixture
def start(lives, clip_path, tmp_path):
    """Arguments of a run of either stage."""

    def start(stage: int) -> list:
        stage1 = [*SMALL, "--model", clip_path, "--mapper_hidden_size", 16, "--injection_hidden_size", 16]
        if stage == 1:
            return stage1
        assert lives(tmp_path, [*stage1, "--max_steps", 2, "--output_dir", tmp_path / "stage1"]) == [ENDED]
        return [*SMALL, "--stage", 2, "--model", tmp_path / "stage1", "--lora_rank", 4]

    return start


@pytest.mark.parametrize(("stage", "views"), [(1, 0), (2, 1)])
def test_killed_ten_times_at_random(lives, start, tmp_path, stage, views):
    """At any file that is touched, or up to 50 ms later. An epoch has three steps, so most checkpoints lie within one."""
    arguments = [*start(stage), "--max_steps", 20, "--checkpoint_steps", 2, "--cached_views", views, "--resume"]
    assert lives(tmp_path, [*arguments, "--output_dir", tmp_path / "whole", "--cache_dir", tmp_path / "cache"]) == [ENDED]
    rng = random.Random(stage)
    deaths = [{"path": "", "nth": rng.randint(1, 60)} for _ in range(10)]
    for death in deaths[::2]:
        death["delay"] = rng.uniform(0, 0.05)
    folder = tmp_path / "killed"
    ends = lives(folder, [*arguments, "--output_dir", folder / "out", "--cache_dir", folder / "cache"], deaths)
    assert ends == [KILLED] * 10 + [ENDED]
    assert_same_run(tmp_path / "whole", folder / "out")


def test_killed_wherever_it_could_hurt(lives, start, tmp_path):
    arguments = [*start(1), "--max_steps", 8, "--checkpoint_steps", 2, "--cached_views", 2, "--resume"]
    assert lives(tmp_path, [*arguments, "--output_dir", tmp_path / "whole", "--cache_dir", tmp_path / "cache"]) == [ENDED]
    folder = tmp_path / "killed"
    moments = [
        ("run.partial$", 1),  # before anything marks the folder as that of a run
        ("run.partial$", 2),
        ("view0-", 1),  # features encoded, not yet stored
        ("view1-", 2),
        ("step_000002.partial/progress.json", 1),  # in the first checkpoint
        ("step_000002.partial$", 2),
        ("step_000004.partial/manifest.json", 1),
        ("step_000004.partial/manifest.json", 2),
        ("log.partial$", 1),  # when a resumed run cuts the log
        ("log.partial$", 2),
        ("step_000002$", 1),  # when the oldest checkpoint goes
        ("step_000002.partial$", 1),
        ("model.partial/config.json", 1),  # while the trained model is written
        ("model.partial/config.json", 2),  # and while it moves to its place
        ("training.partial", 1),
        ("README", 1),
    ]
    deaths = [{"path": f"out/.*{path}", "nth": nth} for path, nth in moments]
    for death in deaths[2:4]:
        death["path"] = death["path"].removeprefix("out/.*")
    ends = lives(folder, [*arguments, "--output_dir", folder / "out", "--cache_dir", folder / "cache"], deaths)
    assert dict(zip(moments, ends)) == dict.fromkeys(moments, KILLED) and ends[-1] == ENDED
    assert_same_run(tmp_path / "whole", folder / "out")


def test_two_processes(lives, start, tmp_path):
    """Asked to end, both or one alone, they save together; when one is killed, the other ends; and they go on."""
    arguments = [*start(1), "--max_samples", 20, "--max_steps", 40, "--cached_views", 0, "--resume", "--output_dir"]
    assert lives(tmp_path, [*arguments, tmp_path / "whole"], processes=2) == [[0, 0]]
    out = tmp_path / "out"

    step = end_after_three_steps([sys.executable, *LAUNCHER, train_accelerate.__file__, *arguments, out], out, ENVIRONMENT)
    (checkpoint,) = (out / "checkpoints").iterdir()
    assert checkpoint.name == f"step_{step:06d}" and 3 <= step < 40
    assert [entry["step"] for entry in log_of(out)] == list(range(1, step + 1))
    assert json.loads((checkpoint / "progress.json").read_text())["settings"]["processes"] == 2

    in_a_checkpoint = {"path": "step_.*partial"}
    deaths = [{**in_a_checkpoint, "signal": signal.SIGTERM}, in_a_checkpoint]  # of one process, on which the other waits
    ends = lives(tmp_path, [*arguments, out, "--checkpoint_steps", 5], deaths, processes=2)
    assert ends == [[143, 143], [1, *KILLED], [0, 0]]
    assert json.loads((out / "training.json").read_text())["processes"] == 2
    assert_same_log(tmp_path / "whole", out)
    assert_same_weights(tmp_path / "whole", out)
