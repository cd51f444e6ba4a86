"""What happens to a run between its first step and its last: signals, bad steps, measurements, workers and disks that fail."""

import json
import math
import multiprocessing
import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from m2c.data import scenes
from m2c.data.benchmarks.scenes import load_scenes
from m2c.data.image_folder import write_image_folder
from m2c.training import TrainingConfig, train, trainer
from m2c.training.early_stopping import EarlyStopping
from m2c.training.processes.interruption import Interruption
from m2c.training.records.checkpoint_files import step_of
from m2c.training.steps.step import TrainingStep

from .runs import FAST, SMALL, assert_same_log, assert_same_weights, log_of, on_folder, run, weights_of


@pytest.fixture
def signalled(monkeypatch):
    """Lets a run get signals, all at once, in its fifth step."""

    def signalled(*numbers: int) -> None:
        take = TrainingStep.take

        def take_with_signals(self, step, batch):
            if step == 4:
                for number in numbers:
                    signal.raise_signal(number)
            return take(self, step, batch)

        monkeypatch.setattr(TrainingStep, "take", take_with_signals)

    return signalled


@pytest.mark.parametrize(("number", "exit_code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_asked_to_end_a_run_saves_and_goes_on_from_there(clip_path, tmp_path, capfd, signalled, monkeypatch, number, exit_code):
    arguments = [*FAST, *SMALL, "--model", clip_path]
    assert run(*arguments, "--output_dir", tmp_path / "whole") == 0
    handlers = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    out = tmp_path / "out"
    # Twice within a moment is one request: a cluster signals all processes, and so does its launcher.
    signalled(number, number)
    assert run(*arguments, "--output_dir", out) == exit_code
    message = capfd.readouterr().err
    assert "ended at step 5, which is saved; go on with --resume" in message and "Traceback" not in message
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == handlers
    assert [path.name for path in (out / "checkpoints").iterdir()] == ["step_000005"]
    monkeypatch.undo()
    assert run(*arguments, "--output_dir", out, "--resume") == 0
    assert "going on from" in capfd.readouterr().out
    assert_same_log(tmp_path / "whole", out)
    assert_same_weights(tmp_path / "whole", out)


def test_asked_twice_a_run_ends_at_once(clip_path, tmp_path, capfd, signalled, monkeypatch):
    monkeypatch.setattr("m2c.training.processes.interruption.SAME_REQUEST_SECONDS", 0)
    signalled(signal.SIGINT, signal.SIGINT)
    out = tmp_path / "out"
    assert run(*FAST, *SMALL, "--model", clip_path, "--output_dir", out) == 130
    assert "interrupted; go on with --resume" in capfd.readouterr().err
    assert not (out / "checkpoints").exists()
    assert len(log_of(out)) == 4


@pytest.mark.parametrize("moment", [(Interruption, "agreed"), (trainer, "save_retriever")])
def test_a_signal_in_the_last_moment_costs_nothing(clip_path, tmp_path, capfd, monkeypatch, moment):
    """When no step follows that would notice it, and no checkpoint is written."""
    original, out = getattr(*moment), tmp_path / "out"

    def with_signal(*arguments):
        result = original(*arguments)
        if (out / "log.jsonl").exists() and len(log_of(out)) == 5:
            signal.raise_signal(signal.SIGTERM)
        return result

    monkeypatch.setattr(*moment, with_signal)
    arguments = [*FAST, *SMALL, "--model", clip_path, "--max_steps", 5, "--checkpoint_steps", 0, "--output_dir", out]
    handlers = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    assert run(*arguments) == 143
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == handlers
    assert "ended after the last step, with the model saved" in capfd.readouterr().err
    monkeypatch.undo()
    assert run(*arguments, "--resume") == 0
    assert "holds the finished run" in capfd.readouterr().out
    assert (out / "README.md").exists() and not (out / ".lock").exists()


def test_a_run_without_a_main_thread_trains(clip_path, tmp_path):
    config = TrainingConfig(
        model=str(clip_path), output_dir=str(tmp_path / "out"), max_steps=2, batch_size=4, max_samples=8, mapper_hidden_size=16
    )
    with ThreadPoolExecutor() as threads:
        threads.submit(train, config).result()
    assert (tmp_path / "out" / "model.safetensors").exists()


@pytest.fixture
def broken_steps(monkeypatch):
    """Lets the loss of some steps, counted from 1, be not a number."""

    def broken_steps(steps) -> None:
        take = TrainingStep.take

        def take_with_broken_loss(self, step, batch):
            loss = self.loss

            def broken_loss(*arguments):
                terms = loss(*arguments)
                return {**terms, "loss": terms["loss"] * float("nan")}

            self.loss = broken_loss if step + 1 in steps else loss
            try:
                return take(self, step, batch)
            finally:
                self.loss = loss

        monkeypatch.setattr(TrainingStep, "take", take_with_broken_loss)

    return broken_steps


def test_a_loss_that_is_not_finite_is_named_and_passed_over(clip_path, tmp_path, capsys, broken_steps):
    broken_steps({3})
    arguments = [*FAST, *SMALL, "--model", clip_path, "--checkpoint_steps", 3, "--log_steps", 4]
    assert run(*arguments, "--output_dir", tmp_path / "out") == 0
    assert capsys.readouterr().err.count("warning: step 3: the gradient is not finite, and the weights stay as they were") == 1
    entries = log_of(tmp_path / "out")
    assert [entry["step"] for entry in entries] == [3, 4, 6]
    assert entries[0]["loss"] is None and math.isfinite(entries[1]["loss"])
    assert "NaN" not in (tmp_path / "out" / "log.jsonl").read_text(), "which JSON does not know"
    checkpoint = tmp_path / "out" / "checkpoints" / "step_000003"
    for state in (load_file(checkpoint / "trained.safetensors"), weights_of(tmp_path / "out")):
        assert all(tensor.isfinite().all() for tensor in state.values())


def test_a_run_that_no_longer_learns_ends(clip_path, tmp_path, capsys, broken_steps):
    """Also when it was resumed in between: what is counted belongs to the checkpoint."""
    broken_steps(range(5, 100))
    arguments = [*FAST, *SMALL, "--model", clip_path, "--max_steps", 40, "--checkpoint_steps", 10]
    out = tmp_path / "out"
    assert run(*arguments, "--output_dir", out) == 1
    message = f"not finite in the last 20 steps, up to step 24; the last checkpoint is {out}/checkpoints/step_000020."
    assert message in capsys.readouterr().err
    assert not (out / "model.safetensors").exists()
    assert run(*arguments, "--output_dir", out, "--resume") == 1
    assert message in capsys.readouterr().err
    assert [entry["step"] for entry in log_of(out)] == list(range(1, 25))


@pytest.fixture
def measured(monkeypatch):
    """Lets the measurements of a run give these figures, in this order by step."""

    def measured(figures: dict[int, float]) -> None:
        update = EarlyStopping.update

        def update_with_figure(self, step, measured):
            measured["validation_recall@1"] = figures[step]
            return update(self, step, measured)

        monkeypatch.setattr(EarlyStopping, "update", update_with_figure)

    return measured


EARLY = ["--validation_size", 4, "--eval_steps", 2, "--early_stopping", 2, "--checkpoint_steps", 2, "--max_steps", 12]


def test_early_stopping_ends_with_the_best_weights(clip_path, tmp_path, measured):
    measured({2: 0.1, 4: 0.3, 6: 0.2, 8: 0.3, 10: 0.9, 12: 0.8})
    arguments = [*FAST, *SMALL, "--model", clip_path, *EARLY, "--keep_checkpoints", 9]
    out = tmp_path / "out"
    assert run(*arguments, "--output_dir", out) == 0
    assert log_of(out)[-1]["step"] == 8
    record = json.loads((out / "training.json").read_text())
    assert record["steps"] == 8 and record["validation_recall@1"] == 0.3
    best = load_file(out / "checkpoints" / "step_000004" / "trained.safetensors")
    last = load_file(out / "checkpoints" / "step_000008" / "trained.safetensors")
    saved = weights_of(out)
    assert all(torch.equal(tensor, saved[name.removeprefix("model.")]) for name, tensor in best.items())
    assert not all(torch.equal(tensor, last[name]) for name, tensor in best.items())

    assert run(*arguments, "--output_dir", out, "--resume") == 0
    assert log_of(out)[-1]["step"] == 8, "it is finished"
    assert run(*arguments, "--output_dir", out, "--resume", "--early_stopping", 3) == 0
    assert log_of(out)[-1]["step"] == 12, "it has more patience now"
    assert json.loads((out / "training.json").read_text())["validation_recall@1"] == 0.9


@pytest.mark.parametrize(("patience", "exit_code"), [(2, 1), (0, 0)])
def test_a_resumed_run_measures_where_it_would_have(clip_path, tmp_path, capsys, measured, patience, exit_code):
    """If the best measurement decides: another one might be better. Without early stopping it is one's own choice."""
    measured(dict.fromkeys(range(1, 13), 0.1))
    settings = [*EARLY, "--keep_checkpoints", 9, "--early_stopping", patience, "--output_dir", tmp_path / "out"]
    arguments = [*FAST, *SMALL, "--model", clip_path, *settings]
    assert run(*arguments) == 0
    again = ["--resume", tmp_path / "out" / "checkpoints" / "step_000002", "--eval_steps", 3]
    assert run(*arguments, *again) == exit_code
    refusal = "is of another run: early_stopping was every 2 steps, is every 3 steps\n"
    assert (refusal in capsys.readouterr().err) == bool(patience)


def test_a_resumed_run_stops_where_it_would_have(clip_path, tmp_path, measured, signalled, monkeypatch):
    """After the best measurement, whose weights lie in the checkpoint."""
    figures = {2: 0.1, 4: 0.3, 6: 0.2, 8: 0.1}
    measured(figures)
    arguments = [*FAST, *SMALL, "--model", clip_path, *EARLY]
    assert run(*arguments, "--output_dir", tmp_path / "whole") == 0
    signalled(signal.SIGTERM)
    assert run(*arguments, "--output_dir", tmp_path / "out") == 143
    monkeypatch.undo()
    measured(figures)
    assert run(*arguments, "--output_dir", tmp_path / "out", "--resume") == 0
    assert_same_weights(tmp_path / "whole", tmp_path / "out")
    assert_same_log(tmp_path / "whole", tmp_path / "out")


def test_validation_on_a_benchmark_and_a_picture_of_the_run(clip_path, tmp_path, monkeypatch):
    def few_queries():
        return load_scenes(8)

    monkeypatch.setattr("m2c.training.validation.load_scenes", few_queries)
    arguments = [*FAST, *SMALL, "--model", clip_path, "--validation_benchmark", "scenes", "--eval_steps", 4]
    assert run(*arguments, "--output_dir", tmp_path / "out", "--report_to", "tensorboard") == 0
    measured = [entry for entry in log_of(tmp_path / "out") if any("scenes" in name for name in entry)]
    assert [entry["step"] for entry in measured] == [4, 6]
    record = json.loads((tmp_path / "out" / "training.json").read_text())
    assert {name: record[name] for name in measured[-1] if name != "step"} == {
        name: value for name, value in measured[-1].items() if name != "step"
    }
    assert list((tmp_path / "out" / "tensorboard").rglob("events.*"))
    with Image.open(tmp_path / "out" / "learning_curves.png") as picture:
        assert picture.width > 1000


def test_a_killed_worker_is_named_and_costs_no_step(clip_path, tmp_path, capsys, monkeypatch):
    # More batches than are loaded ahead, or the last worker would have done its work before.
    pairs = write_image_folder(scenes.pairs(40), tmp_path / "pairs")
    arguments = ["--num_workers", 1, "--max_steps", 9, "--checkpoint_steps", 40]
    assert on_folder(pairs, clip_path, tmp_path, *arguments) == 0
    whole, out = (tmp_path / "out").rename(tmp_path / "whole"), tmp_path / "out"
    take = TrainingStep.take

    def take_with_a_kill(self, step, batch):
        if step == 2:
            for worker in multiprocessing.active_children():
                os.kill(worker.pid, signal.SIGKILL)
                os.waitid(os.P_PID, worker.pid, os.WEXITED | os.WNOWAIT)  # so that it ends within this step
        return take(self, step, batch)

    monkeypatch.setattr(TrainingStep, "take", take_with_a_kill)
    assert on_folder(pairs, clip_path, tmp_path, *arguments) == 1
    message = capsys.readouterr().err
    assert "Lower --num_workers or --batch_size, and go on with --resume" in message and "Traceback" not in message
    (checkpoint,) = (out / "checkpoints").iterdir()
    assert 3 <= step_of(checkpoint) < 9, "what was loaded before is still trained on"
    assert f"no batch could be read after step {step_of(checkpoint)};" in message
    monkeypatch.undo()
    assert on_folder(pairs, clip_path, tmp_path, *arguments, "--resume") == 0
    assert f"going on from {checkpoint}" in capsys.readouterr().out
    assert_same_weights(whole, out)
    assert_same_log(whole, out)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has a disk that is always full")
def test_a_disk_that_is_full_when_a_step_is_logged(clip_path, tmp_path, capsys, monkeypatch):
    arguments = [*FAST, *SMALL, "--model", clip_path, "--checkpoint_steps", 2]
    assert run(*arguments, "--output_dir", tmp_path / "whole") == 0
    log, kept, take = tmp_path / "out" / "log.jsonl", tmp_path / "log so far", TrainingStep.take

    def take_on_a_full_disk(self, step, batch):
        if step == 3:
            log.rename(kept)
            log.symlink_to("/dev/full")
        return take(self, step, batch)

    monkeypatch.setattr(TrainingStep, "take", take_on_a_full_disk)
    assert run(*arguments, "--output_dir", tmp_path / "out") == 1
    message = f"error: {log} could not be written (No space left on device). Make room there, and go on with --resume\n"
    assert capsys.readouterr().err.endswith(message)
    kept.rename(log)
    monkeypatch.undo()
    assert run(*arguments, "--output_dir", tmp_path / "out", "--resume") == 0
    assert_same_weights(tmp_path / "whole", tmp_path / "out")
    assert_same_log(tmp_path / "whole", tmp_path / "out")


def test_a_worker_outlives_what_asks_the_run_to_end(pairs_folder, clip_path, tmp_path, capsys, monkeypatch):
    """A launcher signals the whole process group, workers included."""
    take = TrainingStep.take

    def take_with_signals(self, step, batch):
        if step == 1:
            for process in (*multiprocessing.active_children(), multiprocessing.current_process()):
                os.kill(process.pid, signal.SIGTERM)
            time.sleep(0.2)
        return take(self, step, batch)

    monkeypatch.setattr(TrainingStep, "take", take_with_signals)
    assert on_folder(pairs_folder, clip_path, tmp_path, "--num_workers", 2, "--max_steps", 5) == 143
    assert "ended at step 2, which is saved" in capsys.readouterr().err
