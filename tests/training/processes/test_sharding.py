"""Weights must stay whole and exact: what Accelerate may not do to them."""

import os
from datetime import timedelta
from types import SimpleNamespace

import pytest
from accelerate import Accelerator
from accelerate.utils import DistributedType

from m2c.training import TrainingConfig
from m2c.training.processes import sharding
from m2c.training.processes.sharding import build_accelerator, check_sharding, tell_deepspeed


def accelerator_of(kind: str, zero: int | None = None, mixed_precision: str = "no") -> SimpleNamespace:
    plugin = None if zero is None else SimpleNamespace(hf_ds_config=SimpleNamespace(is_zero3=lambda: zero == 3))
    state = SimpleNamespace(deepspeed_plugin=plugin)
    return SimpleNamespace(distributed_type=DistributedType[kind], mixed_precision=mixed_precision, state=state)


def test_frozen_weights_must_stay_whole():
    with pytest.raises(ValueError, match=r"cuts up the weights.*ZeRO-2"):
        check_sharding(accelerator_of("DEEPSPEED", zero=3))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("version", "1"),
        ("auto_wrap_policy", "TRANSFORMER_BASED_WRAP"),
        ("offload_params", "true"),
        ("cpu_ram_efficient_loading", "true"),
        ("activation_checkpointing", "true"),
    ],
)
def test_fsdp_spreads_what_is_trained_and_nothing_else(monkeypatch, name, value):
    monkeypatch.setenv(f"FSDP_{name.upper()}", value)
    check_sharding(accelerator_of("MULTI_GPU"))
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    with pytest.raises(ValueError, match=f"fsdp_{name} {value} does not fit"):
        check_sharding(accelerator_of("MULTI_GPU"))


def test_fsdp_of_an_old_pytorch_is_refused(monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    monkeypatch.setattr(sharding, "is_torch_version", lambda operation, version: True)
    with pytest.raises(ValueError, match="FSDP needs PyTorch"):
        check_sharding(accelerator_of("MULTI_GPU"))


@pytest.fixture
def built(monkeypatch):
    """What Accelerate is asked for: whether by FSDP, and its arguments."""
    seen = []

    def build(**arguments) -> SimpleNamespace:
        seen.append((os.environ.get("ACCELERATE_USE_FSDP"), arguments))
        return accelerator_of("MULTI_GPU")

    monkeypatch.setattr(sharding, "Accelerator", build)
    return seen


def test_fsdp_is_not_left_to_accelerate(monkeypatch, built):
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    build_accelerator(mixed_precision="bf16")
    ((use_fsdp, arguments),) = built
    assert use_fsdp == "false" and os.environ["ACCELERATE_USE_FSDP"] == "true"
    assert arguments["mixed_precision"] == "bf16"


def test_processes_wait_for_each_other_for_hours(built):
    """One that has encoded its share waits for the others in a single call, to which NCCL gives ten minutes."""
    build_accelerator()
    ((_, arguments),) = built
    (group,) = arguments["kwargs_handlers"]
    assert group.to_kwargs() == {"timeout": sharding.PATIENCE} and sharding.PATIENCE >= timedelta(hours=1)


def test_weights_must_stay_exact():
    with pytest.raises(ValueError, match=r"rounds all weights.*torch_autocast"):
        check_sharding(accelerator_of("DEEPSPEED", zero=2, mixed_precision="bf16"))


@pytest.mark.parametrize("whole", [accelerator_of("MULTI_GPU", mixed_precision="bf16"), accelerator_of("DEEPSPEED", zero=2)])
def test_what_leaves_weights_alone_is_accepted(whole):
    check_sharding(whole)


def test_deepspeed_clips_by_the_option_of_training():
    """It takes the step itself, with what its configuration says."""
    accelerator = accelerator_of("DEEPSPEED", zero=2)
    accelerator.state.deepspeed_plugin.deepspeed_config = {"gradient_clipping": 1.0}
    tell_deepspeed(accelerator, TrainingConfig(max_grad_norm=0.25, batch_size=7))
    told = accelerator.state.deepspeed_plugin.deepspeed_config
    assert told == {"gradient_clipping": 0.25, "train_micro_batch_size_per_gpu": 7}
    tell_deepspeed(accelerator_of("MULTI_GPU"), TrainingConfig())


def test_one_process_is_accepted():
    check_sharding(Accelerator(cpu=True))
