import pytest
import torch

from m2c.training import TrainingConfig
from m2c.training.features.encoding import encode_pairs, encode_triplets
from m2c.training.steps.optimization import build_optimizer, build_schedule
from m2c.training.tasks.adapters import add_composing_adapter
from m2c.training.tasks.objectives import composing_loss, soft_text_alignment, symmetric_info_nce
from m2c.training.tasks.stages import ComposingTask, MappingTask, unit


@pytest.fixture
def captions(processor):
    return processor(text=["a red circle", "a blue star", "a photo of a moon"], return_tensors="pt")


@pytest.fixture
def pairs(pixels, captions):
    return {
        "view_a": pixels,
        "view_b": pixels.flip(0) * 0.5,
        "caption_ids": captions.input_ids,
        "caption_mask": captions.attention_mask,
    }


@pytest.fixture
def triplets(pixels, captions, processor):
    prompts = processor.composed_prompt(["is red", "has a big star at the top", ""], return_tensors="pt")
    masks = {"caption_ids": captions.input_ids, "caption_mask": captions.attention_mask}
    return {"reference": pixels, "target": pixels.flip(0) * 0.5, **masks, **prompts}


@pytest.fixture
def mapping(model, processor):
    config = TrainingConfig(stage=1, soft_weight=0.3, view_a_weight=0.7)
    return MappingTask(model, processor.mapping_prompt(1, return_tensors="pt"), config)


@pytest.fixture
def composing(model, processor):
    config = TrainingConfig(
        stage=2, hard_negatives=2, reference_negatives=True, soft_weight=0.3, mapping_weight=0.7, lora_rank=2
    )
    add_composing_adapter(model, config)
    return ComposingTask(model, processor.mapping_prompt(1, return_tensors="pt"), config)


def terms_of(task, batch) -> dict[str, torch.Tensor]:
    return task.loss(task(**batch), batch)


def test_stage_1_is_the_sum_of_its_terms(mapping, pairs, processor):
    mapping.eval()
    model, tau = mapping.model, mapping.config.tau
    with torch.no_grad():
        terms = terms_of(mapping, encode_pairs(model, pairs))
        t = unit(model(**processor.mapping_prompt(3, return_tensors="pt"), pixel_values=pairs["view_a"]).pooler_output)
        a, b = (unit(model.get_image_features(pairs[view]).pooler_output) for view in ("view_a", "view_b"))
        c = unit(model.get_text_features(pairs["caption_ids"], pairs["caption_mask"]).pooler_output)
    torch.testing.assert_close(terms["view_b"], symmetric_info_nce(t, b, tau), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(terms["view_a"], symmetric_info_nce(t, a, tau), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(terms["soft"], soft_text_alignment(c, b, t, tau), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(terms["loss"], terms["view_b"] + 0.7 * terms["view_a"] + 0.3 * terms["soft"])


@pytest.mark.parametrize("teacher", ["reference", "target"])
def test_stage_2_is_the_sum_of_its_terms(composing, triplets, processor, teacher):
    composing.eval()
    composing.config.soft_teacher = teacher
    model, tau = composing.model, composing.config.tau
    with torch.no_grad():
        terms = terms_of(composing, encode_triplets(model, triplets))
        prompt = {name: triplets[name] for name in ("input_ids", "attention_mask", "pseudo_word_position")}
        m = unit(model(**prompt, pixel_values=triplets["reference"]).pooler_output)
        s = unit(model(**processor.mapping_prompt(3, return_tensors="pt"), pixel_values=triplets["reference"]).pooler_output)
        r, t = (unit(model.get_image_features(triplets[name]).pooler_output) for name in ("reference", "target"))
        c = unit(model.get_text_features(triplets["caption_ids"], triplets["caption_mask"]).pooler_output)
    images = {"reference": r, "target": t}[teacher]
    torch.testing.assert_close(terms["composing"], composing_loss(m, t, tau, 2, True, r), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(terms["mapping"], symmetric_info_nce(r, s, tau), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(terms["soft"], soft_text_alignment(c, images, s, tau), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(terms["loss"], terms["composing"] + 0.7 * terms["mapping"] + 0.3 * terms["soft"])


def test_losses_are_in_float32_under_autocast(mapping, pairs, monkeypatch):
    """At a temperature of 0.01 a cosine in bfloat16 is off by tenths of a logit."""
    seen = []

    def loss(a, b, tau):
        seen.append((a @ b.T).dtype)
        return symmetric_info_nce(a, b, tau)

    monkeypatch.setattr("m2c.training.tasks.stages.symmetric_info_nce", loss)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        terms_of(mapping, encode_pairs(mapping.model, pairs))
    assert seen == [torch.float32, torch.float32]


def check_gradients(task, batch, is_trained) -> None:
    task.train()
    terms_of(task, batch)["loss"].backward()
    for name, parameter in task.named_parameters():
        if is_trained(name):
            assert parameter.requires_grad and parameter.grad is not None and parameter.grad.abs().sum() > 0, name
        else:
            assert not parameter.requires_grad and parameter.grad is None, name


def test_stage_1_trains_mapper_and_injection_and_nothing_else(mapping, pairs):
    batch = encode_pairs(mapping.model, pairs)
    check_gradients(mapping, batch, lambda name: name.startswith(("model.token_mapper", "model.semantic_injection")))


def test_stage_2_trains_adapters_and_nothing_else(composing, triplets):
    with torch.no_grad():
        for name, parameter in composing.named_parameters():
            if "lora_B" in name:  # zero at first, which would keep the gradient from lora_A
                parameter.normal_(std=0.1)
    check_gradients(composing, encode_triplets(composing.model, triplets), lambda name: "lora_" in name)
    assert all("composing_encoder" in name for name, parameter in composing.named_parameters() if parameter.requires_grad)


def test_modes(mapping, model, processor):
    """Stage 1 trains with dropout and batch statistics of its own modules; stage 2 leaves both frozen."""
    mapping.train()
    assert model.token_mapper.training and model.semantic_injection.training
    assert not model.text_model.training and not model.vision_model.training
    config = TrainingConfig(stage=2)
    add_composing_adapter(model, config)
    ComposingTask(model, processor.mapping_prompt(1, return_tensors="pt"), config).train()
    assert not model.token_mapper.training and not model.semantic_injection.training
    assert model.composing_encoder.training and not model.text_model.training


def test_stage_2_leaves_batch_statistics_alone(composing, triplets):
    before = composing.model.semantic_injection.blocks["0"].norm.running_mean.clone()
    composing.train()
    composing(**encode_triplets(composing.model, triplets))
    assert torch.equal(composing.model.semantic_injection.blocks["0"].norm.running_mean, before)


def test_new_adapters_change_nothing(model, processor, pixels):
    inputs = {**processor.mapping_prompt(3, return_tensors="pt"), "pixel_values": pixels}
    with torch.no_grad():
        before = model(**inputs).pooler_output
        add_composing_adapter(model, TrainingConfig(stage=2))
        torch.testing.assert_close(model(**inputs).pooler_output, before)
    with pytest.raises(ValueError, match="already has composing adapters"):
        add_composing_adapter(model, TrainingConfig(stage=2))


def test_weight_decay_spares_biases_and_norms(mapping):
    optimizer = build_optimizer(mapping, TrainingConfig(weight_decay=0.1))
    decayed, spared = optimizer.param_groups
    assert (decayed["weight_decay"], spared["weight_decay"]) == (0.1, 0.0)
    assert all(p.ndim >= 2 for p in decayed["params"]) and all(p.ndim < 2 for p in spared["params"])
    trained = sum(p.requires_grad for p in mapping.parameters())
    assert len(decayed["params"]) + len(spared["params"]) == trained
    assert optimizer.defaults["betas"] == (0.9, 0.98) and optimizer.defaults["eps"] == 1e-6


def test_schedule_warms_up_and_ends_at_zero(mapping):
    config = TrainingConfig(max_steps=50, warmup_steps=10, learning_rate=1.0)
    optimizer = build_optimizer(mapping, config)
    schedule, rates = build_schedule(optimizer, config), []
    for _ in range(50):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert rates[0] == 0 and rates[10] == 1.0 == max(rates) and rates[:11] == sorted(rates[:11])
    assert rates[10:] == sorted(rates[10:], reverse=True) and optimizer.param_groups[0]["lr"] == pytest.approx(0, abs=1e-6)


def test_a_warmup_that_nobody_asked_for_does_not_eat_a_short_run():
    assert TrainingConfig(max_steps=10).warmup_steps == 2
    assert TrainingConfig(max_steps=10, warmup_steps=9).warmup_steps == 9


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"stage": 3}, "--stage is 1"),
        ({"max_steps": 0}, "--max_steps must be positive, not 0"),
        ({"weight_decay": -0.1}, "--weight_decay must not be negative"),
        ({"mapper_only": True, "injection_layers": [1]}, "--mapper_only has no injection"),
    ],
)
def test_arguments_that_make_no_sense(arguments, message):
    with pytest.raises(ValueError, match=message):
        TrainingConfig(**arguments)
