"""Whole runs of the training script on tiny models, as users start them."""

import errno
import json
import math
import multiprocessing
import os
import shutil
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from accelerate.state import AcceleratorState
from datasets import Dataset
from filelock import FileLock
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from transformers import AutoModel
from transformers.models.clip.modeling_clip import CLIPAttention

import train_accelerate
from m2c.data import scenes
from m2c.data.benchmarks.scenes import load_scenes
from m2c.data.image_folder import write_image_folder
from m2c.training import TrainingConfig, train, trainer
from m2c.training.early_stopping import EarlyStopping
from m2c.training.processes.interruption import Interruption
from m2c.training.records.checkpoint_files import step_of
from m2c.training.samples.images import PairSamples
from m2c.training.steps.step import TrainingStep


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


def assert_same_log(a, b) -> None:
    first, second = log_of(a), log_of(b)
    for entry in (*first, *second):
        entry.pop("seconds", None)
    assert first == second


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
        arguments = [*FAST, *start, "--cached_views", 1, "--cache_dir", tmp_path / f"cache of {name}"]
        assert run(*arguments, "--output_dir", tmp_path / name, *flags) == 0
        counts.append(len(calls))
    # Four layers in each of six steps, and in stage 2 two prompts.
    assert counts[1] - counts[0] == 6 * 4 * stage
    plain, checkpointed = weights_of(tmp_path / "plain"), weights_of(tmp_path / "checkpointed")
    for name in plain:
        torch.testing.assert_close(plain[name], checkpointed[name], atol=1e-4, rtol=1e-3)


def test_mixed_precision(clip_path, tmp_path, monkeypatch):
    """The towers and what is trained compute in half the bits, and weights keep all of theirs."""
    seen, take = {"token_mapper": set(), "attention": set()}, TrainingStep.take

    def take_and_look(self, step, batch):
        modules = {"token_mapper": self.model.token_mapper.fc1, "attention": self.model.composing_encoder.layers[0].self_attn}
        hooks = [
            module.register_forward_hook(lambda module, args, out, name=name: seen[name].add((*out,)[0].dtype))
            for name, module in modules.items()
        ]
        try:
            return take(self, step, batch)
        finally:
            for hook in hooks:
                hook.remove()

    monkeypatch.setattr(TrainingStep, "take", take_and_look)
    assert run(*FAST, *SMALL, "--model", clip_path, "--output_dir", tmp_path / "out", "--mixed_precision", "bf16") == 0
    assert {tensor.dtype for tensor in weights_of(tmp_path / "out").values()} <= {torch.float16, torch.float32, torch.int64}
    assert seen == {"token_mapper": {torch.bfloat16}, "attention": {torch.bfloat16}}
    losses = [entry["loss"] for entry in log_of(tmp_path / "out")]
    AcceleratorState._reset_state()
    assert run(*FAST, *SMALL, "--model", clip_path, "--output_dir", tmp_path / "plain") == 0
    exact = [entry["loss"] for entry in log_of(tmp_path / "plain")]
    assert losses != exact and losses == pytest.approx(exact, rel=0.05), "coarser, and of the same data"


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
            signal.raise_signal(signal.SIGINT)
        return result

    monkeypatch.setattr(*moment, with_signal)
    arguments = [*FAST, *SMALL, "--model", clip_path, "--max_steps", 5, "--checkpoint_steps", 0, "--output_dir", out]
    assert run(*arguments) == 130
    monkeypatch.undo()
    assert run(*arguments, "--resume") == 0
    assert "holds the finished run" in capfd.readouterr().out


def test_a_run_without_a_main_thread_trains(clip_path, tmp_path):
    config = TrainingConfig(
        model=str(clip_path), output_dir=str(tmp_path / "out"), max_steps=2, batch_size=4, max_samples=8, mapper_hidden_size=16
    )
    with ThreadPoolExecutor() as threads:
        threads.submit(train, config).result()
    assert (tmp_path / "out" / "model.safetensors").exists()


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


@pytest.mark.parametrize("workers", [0, 1])
def test_what_the_system_refuses_to_read_is_named(pairs_folder, clip_path, tmp_path, capsys, monkeypatch, workers):
    def refuse(self, index):
        raise PermissionError(errno.EACCES, "Permission denied", "0.png")

    monkeypatch.setattr(PairSamples, "__getitem__", refuse)
    assert on_folder(pairs_folder, clip_path, tmp_path, "--cached_views", 0, "--num_workers", workers) == 1
    assert capsys.readouterr().err.endswith("error: [Errno 13] Permission denied: '0.png'\n")


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


def test_a_disk_that_is_full_when_the_model_is_saved(clip_path, tmp_path, capsys, monkeypatch):
    def full(*_):
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    arguments = [*FAST, *SMALL, "--model", clip_path, "--checkpoint_steps", 4]
    assert run(*arguments, "--output_dir", tmp_path / "whole") == 0
    out = tmp_path / "out"
    monkeypatch.setattr("m2c.training.trainer.save_retriever", full)
    assert run(*arguments, "--output_dir", out) == 1
    message = capsys.readouterr().err
    assert f"error: the trained model could not be written to {out}: " in message and "No space left on device" in message
    assert "Make room there, and go on with --resume" in message
    assert {path.name for path in out.iterdir()} == {"checkpoints", "learning_curves.png", "log.jsonl", "run.json"}
    monkeypatch.undo()
    assert run(*arguments, "--output_dir", out, "--resume") == 0
    assert_same_weights(tmp_path / "whole", out)


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


@pytest.mark.parametrize("workers", [0, 1])
def test_a_row_that_is_mended_costs_no_step(pairs_folder, clip_path, tmp_path, capsys, workers):
    """What was done before the row came up is saved, and the run goes on from there as if nothing had been wrong."""
    arguments = ["--max_steps", 7, "--cached_views", 0, "--num_workers", workers]
    assert on_folder(pairs_folder, clip_path, tmp_path, *arguments) == 0
    whole, out = (tmp_path / "out").rename(tmp_path / "whole"), tmp_path / "out"
    image = pairs_folder / "image" / f"{row_of_the_third_step():06d}.png"
    content = image.read_bytes()
    image.write_bytes(b"not an image")
    assert on_folder(pairs_folder, clip_path, tmp_path, *arguments) == 1
    message = capsys.readouterr().err
    assert "no batch could be read after step 2; once that is mended, go on from there with --resume" in message
    assert "unreadable image" in message and "Traceback" not in message
    assert on_folder(pairs_folder, clip_path, tmp_path, *arguments, "--resume") == 1
    assert [path.name for path in (out / "checkpoints").iterdir()] == ["step_000002"]
    image.write_bytes(content)
    assert on_folder(pairs_folder, clip_path, tmp_path, *arguments, "--resume") == 0
    assert_same_weights(whole, out)
    assert_same_log(whole, out)


def row_of_the_third_step() -> int:
    """A row of the second epoch's first batch that the first epoch, of two batches of four rows, leaves out."""
    first, second = (torch.randperm(10, generator=torch.Generator().manual_seed(epoch)).tolist() for epoch in range(2))
    return next(row for row in second[:4] if row not in first[:8])


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
