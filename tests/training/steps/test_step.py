"""What a step hands to the modules that it trains."""

from contextlib import nullcontext

import pytest
import torch
from accelerate.state import AcceleratorState

from m2c.training.features.encoding import Encoder
from m2c.training.steps import step as module
from m2c.training.steps.step import TrainingStep

from ..runs import FAST, SMALL, assert_same_log, assert_same_weights, log_of, run


def test_activations_reach_adapters_in_the_precision_they_have(stage1, tmp_path, monkeypatch):
    """PEFT would widen them, and autocast narrow them again: the same numbers by a longer way."""
    seen, take = [], TrainingStep.take

    def take_and_look(self, step, batch):
        adapter = self.model.composing_encoder.layers[0].mlp.fc2.lora_A["default"]
        hook = adapter.register_forward_pre_hook(lambda _, inputs: seen[-1].add(inputs[0].dtype))
        try:
            return take(self, step, batch)
        finally:
            hook.remove()

    monkeypatch.setattr(TrainingStep, "take", take_and_look)
    for name in ("short", "long"):
        seen.append(set())
        arguments = ["--stage", 2, "--model", stage1, "--mixed_precision", "bf16", "--output_dir", tmp_path / name]
        AcceleratorState._reset_state()
        assert run(*FAST, *arguments) == 0
        monkeypatch.setattr("m2c.training.steps.step.disable_input_dtype_casting", lambda model: nullcontext())
    assert seen == [{torch.bfloat16}, {torch.float32}]
    assert_same_weights(tmp_path / "short", tmp_path / "long")
    assert_same_log(tmp_path / "short", tmp_path / "long")


def test_images_pass_the_towers_in_parts(clip_path, tmp_path, monkeypatch):
    """A large batch needs no more memory there than the cache does."""
    sizes, encode = [], Encoder.__call__

    def encode_and_look(self, model, batch):
        sizes[-1].append(len(batch["view_a"]))
        return encode(self, model, batch)

    monkeypatch.setattr(Encoder, "__call__", encode_and_look)
    for name in ("at once", "in parts"):
        sizes.append([])
        arguments = ["--model", clip_path, "--max_steps", 1, "--cached_views", 0, "--output_dir", tmp_path / name]
        assert run(*FAST, *SMALL, *arguments) == 0
        monkeypatch.setattr(module, "BATCH_SIZE", 3)
    assert sizes == [[4], [3, 1]]
    (one,), (other,) = (log_of(tmp_path / name) for name in ("at once", "in parts"))
    assert one["loss"] == pytest.approx(other["loss"], rel=1e-5)
