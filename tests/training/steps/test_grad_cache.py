"""Chunks give the gradient of the whole batch, with dropout, batch norm and activation checkpointing."""

import copy

import pytest
import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from m2c.training import TrainingConfig
from m2c.training.steps.grad_cache import GradCache
from m2c.training.tasks.adapters import add_composing_adapter
from m2c.training.tasks.stages import ComposingTask, MappingTask


ROWS = 10


@pytest.fixture
def prompt(processor):
    return processor.mapping_prompt(1, return_tensors="pt")


@pytest.fixture
def pairs(model):
    torch.manual_seed(0)
    size, patches = model.config.projection_dim, 4
    return {
        "image_tokens": torch.randn(ROWS, 1 + patches, size),
        "image_embeds": torch.randn(ROWS, size),
        "caption_embeds": torch.randn(ROWS, size),
    }


@pytest.fixture
def triplets(model, processor, pairs):
    texts = ["is red", "has a big star at the top", "", "is blue", "two moons"] * 2
    with torch.no_grad():
        reference = model.eval().encode_reference(pairs["image_tokens"])
    embeds = {f"{name}_embeds": torch.randn_like(pairs["image_embeds"]) for name in ("reference", "target", "caption")}
    return {
        "pseudo_word": reference.pseudo_word,
        "keys_values": torch.stack(reference.keys_values, dim=1),
        **embeds,
        **processor.composed_prompt(texts, return_tensors="pt"),
    }


def mapping_task(model, prompt, **settings) -> MappingTask:
    return MappingTask(model, prompt, TrainingConfig(stage=1, **settings))


def composing_task(model, prompt, **settings) -> ComposingTask:
    config = TrainingConfig(stage=2, hard_negatives=3, reference_negatives=True, lora_rank=2, lora_dropout=0.3, **settings)
    add_composing_adapter(model, config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:  # zero at first, which would keep the gradient from lora_A
                parameter.normal_(std=0.1)
    return ComposingTask(model, prompt, config)


def plain(task, batch):
    task.place.begin(7, 0)
    terms = task.loss(task(**batch), batch)
    terms["loss"].backward()
    return terms


def chunked(task, batch, chunk_size):
    task.place.begin(7, 0)
    return GradCache(task, Accelerator(cpu=True), chunk_size).backward(batch)


def assert_same(one, two, terms_one, terms_two) -> None:
    for name, value in terms_one.items():
        torch.testing.assert_close(terms_two[name], value, atol=1e-5, rtol=1e-5)
    for (name, a), b in zip(one.named_parameters(), two.parameters()):
        assert (a.grad is None) == (b.grad is None), name
        if a.grad is not None:
            assert a.grad.abs().sum() > 0, name
            torch.testing.assert_close(b.grad, a.grad, atol=1e-5, rtol=1e-5, msg=lambda text, name=name: f"{name}: {text}")
    for (name, a), b in zip(one.named_buffers(), two.buffers()):
        torch.testing.assert_close(b, a, msg=name)


@settings(max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(chunk_size=st.integers(1, ROWS + 3))
def test_stage_1_in_chunks_is_stage_1(model, prompt, pairs, chunk_size):
    """Dropout on, batch norm over the whole batch; the last chunk may be smaller."""
    one = mapping_task(copy.deepcopy(model), prompt).train()
    two = mapping_task(copy.deepcopy(model), prompt).train()
    assert_same(one, two, plain(one, pairs), chunked(two, pairs, chunk_size))
    assert all(norm.moments is None for norm in two.modules() if hasattr(norm, "moments"))


@settings(max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(chunk_size=st.integers(1, ROWS + 3))
def test_stage_2_in_chunks_is_stage_2(model, prompt, triplets, chunk_size):
    one, two = (composing_task(copy.deepcopy(model), prompt).train() for _ in range(2))
    two.load_state_dict(one.state_dict())
    assert_same(one, two, plain(one, triplets), chunked(two, triplets, chunk_size))


def test_activation_checkpointing_repeats_the_dropout_of_adapters(model, prompt, triplets):
    one = composing_task(copy.deepcopy(model), prompt).train()
    two = composing_task(copy.deepcopy(model), prompt, gradient_checkpointing=True).train()
    two.load_state_dict(one.state_dict())
    assert_same(one, two, plain(one, triplets), plain(two, triplets))
    for task in (one, two):
        task.zero_grad()
    assert_same(one, two, plain(one, triplets), chunked(two, triplets, 4))


def test_memory_depends_on_the_chunk(model, prompt, pairs):
    """No more of the batch than a chunk is in the trained modules at a time."""
    task, seen = mapping_task(model, prompt).train(), []
    task.model.token_mapper.register_forward_pre_hook(lambda module, inputs: seen.append(len(inputs[0])))
    chunked(task, pairs, 4)
    assert set(seen) == {4, 2}


def test_gradients_that_are_spread_are_refused(model, prompt):
    class Sharding:
        distributed_type = DistributedType.DEEPSPEED

    with pytest.raises(ValueError, match="--chunk_size works with one process, DDP or FSDP"):
        GradCache(mapping_task(model, prompt), Sharding(), 4)
