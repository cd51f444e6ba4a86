"""What a step hands to the modules that it trains."""

from contextlib import nullcontext

import torch
from accelerate.state import AcceleratorState

from m2c.training.steps.step import TrainingStep

from ..runs import FAST, assert_same_log, assert_same_weights, run


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
