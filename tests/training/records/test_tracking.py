"""A run can be followed in TensorBoard and trackio, and a resumed one shows no step twice."""

import json
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from accelerate import Accelerator
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from transformers import HfArgumentParser

from m2c.training import TrainingConfig
from m2c.training.records import tracking
from m2c.training.records.tracking import TENSORBOARD_FOLDER, end, log_with, start


def follow(config: TrainingConfig, step: int) -> Accelerator:
    accelerator = Accelerator(cpu=True, log_with=log_with(config), project_dir=Path(config.output_dir, TENSORBOARD_FOLDER))
    start(accelerator, config, step)
    return accelerator


def events_of(config: TrainingConfig) -> EventAccumulator:
    return EventAccumulator(str(Path(config.output_dir, "tensorboard", f"m2c-stage-{config.stage}"))).Reload()


@pytest.fixture
def config(tmp_path) -> TrainingConfig:
    return TrainingConfig(output_dir=str(tmp_path / "out"), report_to=["tensorboard"])


def test_tensorboard_gets_what_is_logged(config):
    accelerator = follow(config, 0)
    for step in (1, 2):
        accelerator.log({"loss": 1 / step, "view_b": float("nan")}, step=step)
    accelerator.log({"validation_recall@1": 0.25, "validation_cirr_subset_R@1": 50.0}, step=2)
    end(accelerator)
    events = events_of(config)
    assert set(events.Tags()["scalars"]) == {"loss", "view_b", "validation_recall@1", "validation_cirr_subset_R@1"}
    assert [(event.step, event.value) for event in events.Scalars("loss")] == [(1, 1.0), (2, 0.5)]
    assert [(event.step, event.value) for event in events.Scalars("validation_recall@1")] == [(2, 0.25)]


def test_a_resumed_run_shows_no_step_twice(config):
    """It was killed, without closing anything, three steps after its checkpoint at step 4, and again after another."""
    follow_to = [(0, 7), (4, 5), (4, 9)]
    for resumed_from, last in follow_to:
        accelerator = follow(config, resumed_from)
        for step in range(resumed_from + 1, last + 1):
            accelerator.log({"loss": float(10 * last + step)}, step=step)
    events = events_of(config).Scalars("loss")
    assert [event.step for event in events] == list(range(1, 10))
    assert [event.value for event in events] == [70.0 + step for step in range(1, 5)] + [90.0 + step for step in range(5, 10)]


def test_nothing_is_tracked_unless_asked_for(tmp_path, recwarn):
    config = TrainingConfig(output_dir=str(tmp_path / "out"))
    accelerator = follow(config, 0)
    accelerator.log({"loss": 1.0}, step=1)
    end(accelerator)
    assert not (tmp_path / "out").exists() and not [warning for warning in recwarn if "log_with" in str(warning.message)]


def test_a_tracker_that_is_not_installed_is_named_with_the_command(monkeypatch):
    monkeypatch.setattr(tracking, "get_available_trackers", lambda: ["tensorboard"])
    assert log_with(TrainingConfig(report_to=["tensorboard"])) == ["tensorboard"]
    with pytest.raises(ValueError, match="--report_to trackio: not installed; pip install trackio"):
        log_with(TrainingConfig(report_to=["tensorboard", "trackio"]))


def test_one_tracker_or_several_on_the_command_line():
    def parse(*arguments: str) -> list[str]:
        (config,) = HfArgumentParser(TrainingConfig).parse_args_into_dataclasses(list(arguments))
        return config.report_to

    assert parse() == parse("--report_to", "none") == ["none"]
    assert parse("--report_to", "trackio", "tensorboard", "--max_steps", "3") == ["trackio", "tensorboard"]
    for wrong in (["wandb"], ["none", "trackio"], ["tensorboard", "wandb"]):
        with pytest.raises(ValueError, match="--report_to is none, or one or more of tensorboard, trackio; not"):
            parse("--report_to", *wrong)


def test_trackio_keeps_one_run_through_a_resume(tmp_path):
    """In a process of its own, as trackio reads where to store when it is imported; it launches nothing and asks nobody."""
    pytest.importorskip("trackio")
    script = """
        import json, os, sys
        os.environ["TRACKIO_DIR"], os.environ["HF_HUB_OFFLINE"] = sys.argv[1] + "/store", "1"
        from accelerate import Accelerator
        from m2c.training import TrainingConfig
        from m2c.training.records.tracking import end, log_with, start

        config = TrainingConfig(output_dir=sys.argv[1] + "/shoes", report_to=["trackio"], cache_dir=sys.argv[1])
        for resumed_from, last in ((0, 5), (3, 6)):
            accelerator = Accelerator(cpu=True, log_with=log_with(config), project_dir=config.output_dir)
            start(accelerator, config, resumed_from)
            for step in range(resumed_from + 1, last + 1):
                accelerator.log({"loss": 1 / step, "validation_recall@1": 0.5}, step=step)
            end(accelerator)

        from trackio.sqlite_storage import SQLiteStorage
        logs = SQLiteStorage.get_logs("m2c-stage-1", "shoes")
        config = SQLiteStorage.get_run_config("m2c-stage-1", "shoes")
        found = {"runs": SQLiteStorage.get_runs("m2c-stage-1"), "logs": logs, "config": config}
        open(sys.argv[1] + "/found.json", "w").write(json.dumps(found, default=str))
    """
    (tmp_path / "script.py").write_text(textwrap.dedent(script), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, tmp_path / "script.py", tmp_path], capture_output=True, text=True, timeout=120, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["runs"] == ["shoes"]
    assert {entry["step"]: entry["loss"] for entry in found["logs"]} == {step: 1 / step for step in range(1, 7)}
    assert found["config"]["learning_rate"] == 8e-3 and str(tmp_path) not in json.dumps(found["config"])
