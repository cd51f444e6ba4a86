"""Stage 1 from captions alone: the task, and whole runs of it."""

import copy
import json
import shutil

import pytest
import torch
from accelerate import Accelerator
from datasets import Dataset
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import load_file
from transformers import AutoModel

import train_accelerate
from m2c.conventions import method_of
from m2c.data import scenes
from m2c.training import TrainingConfig
from m2c.training.features.encoding import encode_captions
from m2c.training.samples.captions import CaptionSamples
from m2c.training.steps.grad_cache import GradCache
from m2c.training.steps.optimization import build_optimizer, build_schedule
from m2c.training.tasks.text_only import TextOnlyTask
from modeling_m2c import M2CModel


CAPTIONS = ["a red circle and a blue star", "is it", "a photo of a moon", "", "a big striped square at the top left"] * 2


def config(**arguments) -> TrainingConfig:
    return TrainingConfig(**{"objective": "text_only", "mapping_prompt_weight": 0.7, **arguments})


@pytest.fixture
def model(make_config) -> M2CModel:
    torch.manual_seed(0)
    return M2CModel(make_config(injection_layers=[], mapper_hidden_act="gelu", mapper_dropout=0.5)).eval()


@pytest.fixture
def make_task(model, processor):
    def make(**arguments) -> TextOnlyTask:
        return TextOnlyTask(copy.deepcopy(model), processor.mapping_prompt(1, return_tensors="pt"), config(**arguments))

    return make


@pytest.fixture
def batch(model, processor) -> dict[str, torch.Tensor]:
    samples = CaptionSamples(Dataset.from_dict({"caption": CAPTIONS}), processor)
    return encode_captions(model, samples.collate([samples[index] for index in range(len(samples))]))


@torch.no_grad()
def test_the_loss_against_plain_clip(make_task, batch, processor):
    """For each caption a CLIP whose placeholder has the pseudo-word as its embedding, and so needs no position."""
    task = make_task().eval()
    terms = task.loss(task(**batch), batch)
    errors = {"masked": [], "mapped": []}
    for row, embeds in enumerate(batch["caption_embeds"]):
        clip = copy.deepcopy(task.model)
        placeholder = processor.tokenizer.convert_tokens_to_ids("*")
        clip.get_input_embeddings().weight[placeholder] = clip.token_mapper(embeds)
        prompts = {"masked": batch["input_ids"][row : row + 1], "mapped": processor.mapping_prompt(1, "pt").input_ids}
        for name, ids in prompts.items():
            errors[name].append((clip.get_text_features(ids).pooler_output[0] - embeds).square().mean())
    for name, values in errors.items():
        torch.testing.assert_close(terms[name], torch.stack(values).mean(), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(terms["loss"], terms["masked"] + 0.7 * terms["mapped"])
    without = make_task(mapping_prompt_weight=0.0).eval()
    terms = without.loss(without(**batch), batch)
    assert set(terms) == {"loss", "masked"} and terms["loss"] == terms["masked"]


def test_the_token_mapper_is_trained_and_nothing_else(make_task, batch):
    task = make_task().train()
    task.loss(task(**batch), batch)["loss"].backward()
    for name, parameter in task.named_parameters():
        assert parameter.requires_grad == name.startswith("model.token_mapper"), name
        assert (parameter.grad is not None and parameter.grad.abs().sum() > 0) == parameter.requires_grad, name


def noise_of(task: TextOnlyTask, batch: dict[str, torch.Tensor], step: int = 0, first_row: int = 0) -> torch.Tensor:
    """What the mapper gets, less what it would get without noise."""
    seen = []
    hook = task.model.token_mapper.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    task.place.begin(step, first_row)
    task(**batch)
    hook.remove()
    assert len(seen) == 1, "one pseudo-word serves both prompts"
    return seen[0] - batch["caption_embeds"]


def rows(batch: dict[str, torch.Tensor], *indices: int) -> dict[str, torch.Tensor]:
    return {name: tensor[list(indices)] for name, tensor in batch.items()}


def test_noise_is_uniform_times_normal(make_task, batch):
    task, many = make_task(noise_scale=2.0, mapping_prompt_weight=0.0).train(), rows(batch, *[0] * 3000)
    many["caption_embeds"] = torch.zeros(3000, 24)
    noise = noise_of(task, many)
    # A row's values have one strength; strengths are uniform in 0..2, so mean and second moment are 1 and 4/3.
    strengths = noise.square().mean(dim=1).sqrt()
    assert strengths.mean().item() == pytest.approx(1, abs=0.05) and strengths.max() < 2 * 1.8
    assert noise.square().mean().item() == pytest.approx(4 / 3, abs=0.05)
    assert noise.mean().item() == pytest.approx(0, abs=0.02)
    shares = [(strengths < limit).float().mean().item() for limit in (0.5, 1.0, 1.5)]
    assert shares == pytest.approx([0.25, 0.5, 0.75], abs=0.03)
    values = noise / strengths[:, None]
    assert (values.abs() > 1).float().mean().item() == pytest.approx(0.317, abs=0.02)  # of a normal distribution


def test_noise_is_new_in_every_step_and_absent_without_training(make_task, batch):
    task = make_task().train()
    first = noise_of(task, batch)
    assert torch.equal(noise_of(task, batch), first) and not torch.equal(noise_of(task, batch, step=1), first)
    assert len(set(first[:, 0].tolist())) == len(CAPTIONS), "each row has its own"
    assert not torch.equal(noise_of(make_task(seed=1).train(), batch), first)
    assert torch.equal(noise_of(make_task(noise_scale=3.0).train(), batch).round(decimals=4), (3 * first).round(decimals=4))
    assert not noise_of(task.eval(), batch).any()


@given(cut=st.integers(1, 9), step=st.integers(0, 3))
@settings(max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_noise_does_not_depend_on_how_rows_are_spread(make_task, batch, cut, step):
    task = make_task().train()
    parts = [noise_of(task, rows(batch, *range(cut)), step), noise_of(task, rows(batch, *range(cut, 10)), step, cut)]
    torch.testing.assert_close(torch.cat(parts), noise_of(task, batch, step), atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("chunk_size", [3, 4, 20])
@pytest.mark.parametrize("weight", [0.0, 0.7])
def test_chunks_give_the_gradient_of_the_batch(make_task, batch, chunk_size, weight):
    """With dropout and noise."""
    one, two = (make_task(mapping_prompt_weight=weight).train() for _ in range(2))
    one.place.begin(7, 0)
    terms = one.loss(one(**batch), batch)
    terms["loss"].backward()
    two.place.begin(7, 0)
    chunked = GradCache(two, Accelerator(cpu=True), chunk_size).backward(batch)
    assert {name: value.item() for name, value in chunked.items()} == pytest.approx(
        {name: value.item() for name, value in terms.items()}, rel=1e-4
    )
    for (name, a), b in zip(one.named_parameters(), two.parameters()):
        if a.grad is not None:
            torch.testing.assert_close(b.grad, a.grad, atol=1e-5, rtol=1e-4, msg=name)


@torch.no_grad()
def test_validation_asks_the_mapping_prompt_for_the_caption(make_task, batch, processor):
    task = make_task().eval()
    queries, answers = task.retrieve(**batch)
    reference = task.model.encode_reference(batch["caption_embeds"][:, None])
    prompts = processor.mapping_prompt(10, return_tensors="pt")
    expected = task.model.compose(reference, **prompts).pooler_output
    torch.testing.assert_close(queries, torch.nn.functional.normalize(expected, dim=-1), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(answers, torch.nn.functional.normalize(batch["caption_embeds"], dim=-1))


# --- Whole runs ---

FAST = ["--objective", "text_only", "--max_steps", "6", "--batch_size", "4", "--log_steps", "1", "--learning_rate", "1e-3"]


def run(*arguments) -> int:
    return train_accelerate.main([*FAST, *map(str, arguments)])


def log_of(out) -> list[dict]:
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


def test_a_run_from_captions_to_a_retriever(clip_path, clip, processor, tmp_path):
    """Rows without any image; the model is one like others, and the CLIP in it is as it was."""
    Dataset.from_dict({"text": scenes.pairs(20)["caption"]}).save_to_disk(tmp_path / "captions")
    out = tmp_path / "out"
    data = ["--dataset", tmp_path / "captions", "--caption_column", "text", "--validation_size", 6]
    assert run("--model", clip_path, *data, "--mapping_prompt_weight", 1, "--output_dir", out) == 0
    entries = log_of(out)
    assert set(entries[0]) == {"step", "loss", "masked", "mapped", "learning_rate", "seconds"}
    assert set(entries[-1]) == {"step", "validation_recall@1", "validation_recall@5", "validation_recall@10"}
    model = AutoModel.from_pretrained(out)
    for name, tensor in clip.state_dict().items():
        assert torch.equal(model.state_dict()[name], tensor), name
    made = model.config
    assert (made.mapper_hidden_size, made.mapper_hidden_act, made.mapper_dropout) == (4 * 24, "gelu", 0.5)
    assert method_of(made) in ("searle", "lincir") and "LinCIR" in (out / "README.md").read_text()
    query = processor(images=Image.new("RGB", (32, 32), "red"), text="is blue", return_tensors="pt")
    with torch.no_grad():
        assert model.get_composed_features(**query).pooler_output.isfinite().all()
    record = json.loads((out / "training.json").read_text())
    assert record["training_rows"] == 14 and record["config"]["objective"] == "text_only"


def test_it_learns(tmp_path):
    arguments = ["--max_samples", 96, "--max_steps", 30, "--batch_size", 24, "--learning_rate", 8e-3]
    assert run(*arguments, "--validation_size", 100, "--output_dir", tmp_path / "out") == 0
    *entries, last, figures = log_of(tmp_path / "out")
    assert last["masked"] < 0.4 * entries[0]["masked"] and last["mapped"] < 0.4 * entries[0]["mapped"]
    assert figures["validation_recall@5"] > 0.5, "chance is 0.05"


@pytest.mark.parametrize("views", [0, 1])
def test_resumed_is_uninterrupted(clip_path, tmp_path, views):
    arguments = ["--model", clip_path, "--max_samples", 14, "--cached_views", views, "--checkpoint_steps", 4]
    assert run(*arguments, "--output_dir", tmp_path / "whole") == 0
    resumed = tmp_path / "resumed"
    shutil.copytree(tmp_path / "whole" / "checkpoints", resumed / "checkpoints")
    assert run(*arguments, "--output_dir", resumed, "--resume", resumed / "checkpoints" / "step_000004") == 0
    assert [entry["step"] for entry in log_of(resumed)][-2:] == [5, 6]
    whole, again = (load_file(out / "model.safetensors") for out in (tmp_path / "whole", resumed))
    assert whole.keys() == again.keys() and all(torch.equal(whole[name], again[name]) for name in whole)


def test_a_line_is_a_caption(clip_path, tmp_path):
    """Files of lines, an empty one among them; a wide mapper by choice."""
    (tmp_path / "a.txt").write_text("a red circle\n\na photo of * and $5\n", encoding="utf-8")
    (tmp_path / "b.txt").write_text("is it\n❤ a blue star\n", encoding="utf-8")
    out, data = tmp_path / "out", ["--dataset", tmp_path / "*.txt", "--caption_column", "text"]
    assert run("--model", clip_path, *data, "--mapper_hidden_size", 30, "--noise_scale", 0.5, "--output_dir", out) == 0
    assert json.loads((out / "training.json").read_text())["training_rows"] == 5
    assert AutoModel.from_pretrained(out).config.mapper_hidden_size == 30


def test_published_settings():
    made = config(dataset="my/captions", mapping_prompt_weight=None)
    assert (made.max_steps, made.batch_size, made.learning_rate, made.weight_decay) == (20_000, 512, 1e-4, 0.01)
    assert (made.noise_scale, made.mapping_prompt_weight, made.warmup_steps) == (1.0, 0.0, 0)
    parameter = torch.nn.Linear(2, 2)
    optimizer = build_optimizer(parameter, made)
    assert (optimizer.defaults["betas"], optimizer.defaults["eps"]) == ((0.9, 0.999), 1e-8)
    schedule, rates = build_schedule(optimizer, made), set()
    for _ in range(9):
        optimizer.step()
        schedule.step()
        rates.add(schedule.get_last_lr()[0])
    assert rates == {1e-4}, "from the first step on, and to the last"
    pairs = TrainingConfig(dataset="my/pairs")
    assert (pairs.adam_beta2, pairs.adam_epsilon, pairs.learning_rate_schedule) == (0.98, 1e-6, "cosine")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--stage", 2], "--objective text_only is one of stage 1"),
        (["--injection_layers", 1], "--injection_layers has no effect with --objective text_only"),
        (["--tau", 0.1], "--tau has no effect with --objective text_only"),
        (["--objective", "image_text", "--noise_scale", 1], "--noise_scale has no effect with --objective image_text"),
        (["--cached_views", 2], "--cached_views 2 would store the same again"),
        (["--noise_scale", -1], "--noise_scale must not be negative"),
        (["--dataset", "no.txt"], "no such file"),
    ],
)
def test_what_makes_no_sense_is_named(clip_path, tmp_path, capsys, arguments, message):
    assert run("--model", clip_path, "--output_dir", tmp_path / "out", *arguments) == 1
    assert message in capsys.readouterr().err


def test_another_mapper_is_refused(clip_path, tmp_path, capsys):
    """What another stage 1 wrote has its mapper already."""
    other = ["--objective", "image_text", "--mapper_only", "--max_samples", 8, "--mapper_hidden_size", 16]
    assert run("--model", clip_path, *other, "--output_dir", tmp_path / "other") == 0
    assert run("--model", tmp_path / "other", "--mapper_hidden_size", 16, "--output_dir", tmp_path / "out") == 1
    assert "is an M2C checkpoint with mapper_hidden_act relu, not gelu" in capsys.readouterr().err
