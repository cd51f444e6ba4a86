"""Training steps of both stages: time and memory, against the way of the method's authors.

    python benchmarks/training.py                                       # some ten minutes on two quiet cores, 5 GB of memory
    python benchmarks/training.py --device cuda --size large-patch14 --batch-size 256 --peak-tflops 989

A CLIP of the given size with random weights and default M2C modules, random pictures, captions and modification texts of 8 to
20 tokens. Steps and batches are those of training itself, [`TrainingStep`] and [`IndexedBatches`]; a step is reading, forward,
loss, backward and optimiser. Pictures lie on the disk as the towers take them: opening and augmenting them is left out, which
favours what encodes them in every step. "The authors' way" encodes the pictures in every step and pads every text to 77 tokens,
written here as the baseline with losses of its own; it gets our modules, without the injection that has no effect, and no
gradient for what is frozen. Each precision has its own baseline, so no ratio mixes them. All ways start from the same weights
and must give the same losses in their first step; then they take steps in turns, within one process. Peak memory is that of a
process of its own for each way, with everything in it; on a GPU, of its tensors.

The work of a step is counted, in multiplications and additions of matrices and convolutions.
"""

import tempfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated, Literal

import torch
import typer
from accelerate import Accelerator
from timing import print_table, time_in_turns
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode
from transformers import BatchFeature

from m2c.training import TrainingConfig
from m2c.training.batches import IndexedBatches
from m2c.training.features.encoding import CachedFeatures, encode_pairs, encode_triplets
from m2c.training.features.shards import ROWS_PER_SHARD, FeatureShards, Shard
from m2c.training.memory import peak_memory
from m2c.training.steps.optimization import build_optimizer
from m2c.training.steps.step import TrainingStep
from m2c.training.tasks.adapters import add_composing_adapter
from m2c.training.tasks.stages import ComposingTask, MappingTask
from modeling_m2c import M2CConfig, M2CModel


TINY = {"hidden_size": 16, "intermediate_size": 32, "num_attention_heads": 2, "projection_dim": 16}
CLIP_SIZES = {
    "base-patch32": {},  # the defaults
    "large-patch14": {
        "projection_dim": 768,
        "text_config": {"hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12, "projection_dim": 768},
        "vision_config": {
            "hidden_size": 1024,
            "intermediate_size": 4096,
            "num_hidden_layers": 24,
            "num_attention_heads": 16,
            "patch_size": 14,
            "projection_dim": 768,
        },
    },
    "tiny": {  # to see whether this script runs
        "projection_dim": 16,
        "text_config": {**TINY, "num_hidden_layers": 4},
        "vision_config": {**TINY, "num_hidden_layers": 2},
    },
}
CONTEXT_LENGTH = 77
START, END = 49406, 49407
MAPPING_PROMPT = [START, 320, 1125, 539, 265, END]  # "a photo of *"
PSEUDO_WORD_POSITION = 4
# At the published temperature features of random weights tell no images apart, and all losses would be alike.
SHARP_TAU = 0.002
BATCHES_PER_EPOCH = 4


@dataclass(frozen=True)
class Way:
    """One way of taking the same training step."""

    name: str
    trimmed: bool = False
    cached: bool = False
    chunk_size: int | None = None
    is_baseline: bool = False


WAYS = (
    Way("the authors' way", is_baseline=True),
    Way("trimmed prompts", trimmed=True),
    Way("cached features", cached=True),
    Way("all: trimmed, cached", trimmed=True, cached=True),
)
# The whole batch at once, and a quarter of it at a time. Dropout draws for 32 rows at least, so smaller chunks cost more.
GRAD_CACHE_WAYS = (
    Way("all", trimmed=True, cached=True),
    Way("all, in chunks of 32", trimmed=True, cached=True, chunk_size=32),
)
GRAD_CACHE_BATCH = 128
NAMES = {"no": "float32", "bf16": "bfloat16"}


@dataclass(frozen=True)
class Setting:
    """What all ways of a table have in common. `precision` is that of `--mixed_precision`."""

    stage: int
    size: str
    batch_size: int
    device: str
    precision: str
    folder: Path = field(repr=False)

    @property
    def num_rows(self) -> int:
        return BATCHES_PER_EPOCH * self.batch_size


class Texts:
    """Random texts of all rows, as samples have them; padded to the context length they need no mask, as the tower looks back
    only."""

    def __init__(self, setting: Setting, trimmed: bool, of_features: bool):
        self.setting, self.trimmed, self.of_features = setting, trimmed, of_features
        self.rows = None
        generator = torch.Generator().manual_seed(0)
        self.captions, self.modifications = (
            [
                [*prefix, *torch.randint(1000, 40000, (int(length) - len(prefix) - 1,), generator=generator).tolist(), END]
                for length in torch.randint(8, 21, (setting.num_rows,), generator=generator)
            ]
            for prefix in ([START], MAPPING_PROMPT[:-1])
        )

    def __len__(self) -> int:
        return self.setting.num_rows

    def prompts(self, indices: list[int]) -> dict[str, torch.Tensor]:
        """The texts that a step needs: with stored features none but the prompts of stage 2."""
        batch = {}
        if not self.of_features:
            batch["caption_ids"], batch["caption_mask"] = self._pad([self.captions[index] for index in indices])
        if self.setting.stage == 2:
            batch["input_ids"], batch["attention_mask"] = self._pad([self.modifications[index] for index in indices])
            batch["pseudo_word_position"] = torch.full((len(indices),), PSEUDO_WORD_POSITION)
        return batch

    def _pad(self, texts: list[list[int]]) -> tuple[torch.Tensor, torch.Tensor]:
        width = max(map(len, texts)) if self.trimmed else CONTEXT_LENGTH
        masks = [[1] * len(text) + [int(not self.trimmed)] * (width - len(text)) for text in texts]
        return torch.tensor([padded(text, width) for text in texts]), torch.tensor(masks)


def padded(ids: list[int], length: int) -> list[int]:
    return ids + [END] * (length - len(ids))


class Training:
    """Model, optimiser and data of one way; a call takes a step."""

    def __init__(self, way: Way, setting: Setting, accelerator: Accelerator):
        self.accelerator = accelerator
        torch.manual_seed(0)
        config = TrainingConfig(
            stage=setting.stage, dataset="pictures", model="clip", batch_size=setting.batch_size, chunk_size=way.chunk_size,
            tau=SHARP_TAU,
        )  # fmt: skip
        task = build_task(way, setting, config)
        encode = None if way.cached else encode_pairs if setting.stage == 1 else encode_triplets
        if way.is_baseline:
            self.step = AuthorsStep(config, accelerator, task)
        else:
            self.step = TrainingStep(config, accelerator, task, encode)
        shards = FeatureShards(setting.folder / ("features" if way.cached else "pictures"), setting.num_rows, 1)
        shards.open()
        data = CachedFeatures(shards, Texts(setting, way.trimmed, way.cached))
        self.batches: Iterator = IndexedBatches(data, config, accelerator).since(0)
        self.number = 0

    def __call__(self) -> dict[str, torch.Tensor]:
        terms, _ = self.step.take(self.number, next(self.batches))
        self.number += 1
        if self.accelerator.device.type == "cuda":
            torch.cuda.synchronize()
        return terms


def build_task(way: Way, setting: Setting, config: TrainingConfig) -> MappingTask | ComposingTask:
    model = M2CModel(M2CConfig(**CLIP_SIZES[setting.size])).eval()
    if setting.stage == 2:
        add_composing_adapter(model, config)
    model.to(setting.device)
    if setting.device == "cpu":
        model.set_attn_implementation("eager")  # as in training: the backward pass of SDPA is slow there
    prompt = torch.tensor([padded(MAPPING_PROMPT, len(MAPPING_PROMPT) if way.trimmed else CONTEXT_LENGTH)])
    prompt = BatchFeature({"input_ids": prompt, "pseudo_word_position": torch.tensor([PSEUDO_WORD_POSITION])})
    return (MappingTask if setting.stage == 1 else ComposingTask)(model, prompt, config).to(setting.device)


class AuthorsStep:
    """The baseline: both towers in the step, with gradient for what is trained alone."""

    def __init__(self, config: TrainingConfig, accelerator: Accelerator, task: MappingTask | ComposingTask):
        self.config, self.accelerator, self.task = config, accelerator, task
        self.optimizer = build_optimizer(task, config)
        self.losses = authors_mapping_losses if config.stage == 1 else authors_composing_losses

    def take(self, number: int, batch: dict[str, torch.Tensor]) -> tuple[dict[str, torch.Tensor], bool]:
        self.task.train()
        self.task.place.begin(number, 0)  # the dropout of the other ways
        self.optimizer.zero_grad()
        with self.accelerator.autocast():
            terms = self.losses(self.task, batch)
        terms["loss"].backward()
        torch.nn.utils.clip_grad_norm_([p for p in self.task.parameters() if p.requires_grad], self.config.max_grad_norm)
        self.optimizer.step()
        return terms, True


def authors_mapping_losses(task: MappingTask, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Stage 1 from pictures, with both towers in the step."""
    model, config = task.model, task.config
    with torch.no_grad():
        tokens = model.get_image_tokens(batch["view_a"])
        view_b = F.normalize(model.get_image_features(batch["view_b"]).pooler_output.float())
        captions = F.normalize(model.get_text_features(batch["caption_ids"]).pooler_output.float())
    mapped = mapping_prompts(task, tokens)
    view_a = F.normalize(tokens[:, 0].float())
    losses = {
        "view_b": both_directions(mapped, view_b, config.tau),
        "view_a": both_directions(mapped, view_a, config.tau),
        "soft": soft_alignment(captions, view_b, mapped, config.tau),
    }
    return {"loss": losses["view_b"] + losses["view_a"] + 0.2 * losses["soft"], **losses}


def authors_composing_losses(task: ComposingTask, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Stage 2 from pictures, with both towers in the step."""
    model, tau, k = task.model, task.config.tau, task.config.hard_negatives
    with torch.no_grad():
        tokens = model.get_image_tokens(batch["reference"])
        targets = F.normalize(model.get_image_features(batch["target"]).pooler_output.float())
        captions = F.normalize(model.get_text_features(batch["caption_ids"]).pooler_output.float())
    references = F.normalize(tokens[:, 0].float())
    mapped = mapping_prompts(task, tokens)
    prompts = batch["input_ids"], batch["pseudo_word_position"]
    composed = F.normalize(model.compose(model.encode_reference(tokens), *prompts).pooler_output.float())
    logits, labels = composed @ targets.T, torch.arange(len(composed), device=composed.device)
    similarity = targets @ targets.T
    low, high = similarity.min(dim=1, keepdim=True).values, similarity.max(dim=1, keepdim=True).values
    hardest = logits.detach().masked_fill(F.one_hot(labels).bool(), -2).topk(k).indices
    weights = ((similarity - low) / (high - low)).gather(1, hardest)[..., None]
    mixed = weights * targets[:, None] + (1 - weights) * targets[hardest]
    with_mixed = torch.cat([logits, torch.einsum("id,ikd->ik", composed, mixed)], dim=1)
    losses = {
        "composing": (F.cross_entropy(logits.T / tau, labels) + F.cross_entropy(with_mixed / tau, labels)) / 2,
        "mapping": both_directions(references, mapped, tau),
        "soft": soft_alignment(captions, references, mapped, tau),
    }
    return {"loss": losses["composing"] + losses["mapping"] + 0.2 * losses["soft"], **losses}


def mapping_prompts(task: MappingTask | ComposingTask, tokens: torch.Tensor) -> torch.Tensor:
    reference, batch_size = task.model.encode_reference(tokens), len(tokens)
    composed = task.model.compose(reference, task.prompt_ids.repeat(batch_size, 1), task.prompt_position.repeat(batch_size))
    return F.normalize(composed.pooler_output.float())


def both_directions(one: torch.Tensor, other: torch.Tensor, tau: float) -> torch.Tensor:
    logits, labels = one @ other.T / tau, torch.arange(len(one), device=one.device)
    return (F.cross_entropy(logits, labels) + F.cross_entropy(logits.T, labels)) / 2


def soft_alignment(captions: torch.Tensor, images: torch.Tensor, texts: torch.Tensor, tau: float) -> torch.Tensor:
    teacher, student = ((captions @ each.T / tau).softmax(dim=1) for each in (images, texts))
    return (teacher * (teacher / student).log()).sum(dim=1).mean()


def write_data(setting: Setting) -> None:
    """Pictures, and the features that the cache would keep of them."""
    generator, names = torch.Generator().manual_seed(0), ("view_a", "view_b") if setting.stage == 1 else ("reference", "target")
    pictures, features = (FeatureShards(setting.folder / kind, setting.num_rows, 1) for kind in ("pictures", "features"))
    torch.manual_seed(0)
    task = build_task(WAYS[1], setting, TrainingConfig(stage=setting.stage, dataset="pictures", model="clip"))
    texts = Texts(setting, trimmed=True, of_features=False)
    for shards in (pictures, features):
        shards.folder.mkdir()
    for number in range(-(-setting.num_rows // ROWS_PER_SHARD)):
        rows, shard = pictures.rows(Shard(0, number)), Shard(0, number)
        # Large patches of colour: pixels of noise would all look the same to the vision tower.
        shown = {name: F.interpolate(3 * torch.randn(len(rows), 3, 4, 4, generator=generator), 224) for name in names}
        pictures.write(shard, shown)
        parts = []
        for part in (list(rows)[start : start + setting.batch_size] for start in range(0, len(rows), setting.batch_size)):
            inputs = {name: x[[row - rows.start for row in part]] for name, x in shown.items()} | texts.prompts(part)
            on_device = {name: x.to(setting.device) for name, x in inputs.items()}
            with torch.autocast(setting.device, torch.bfloat16, enabled=setting.precision == "bf16"):
                encoded = (encode_pairs if setting.stage == 1 else encode_triplets)(task.model, on_device)
            parts.append({name: x.half().cpu() for name, x in encoded.items() if x.is_floating_point()})
        features.write(shard, {name: torch.cat([part[name] for part in parts]) for name in parts[0]})


def check_losses(terms: dict[Way, dict[str, float]], precision: str) -> None:
    """Raises `ValueError` unless all ways have the losses of the first, as far as their precision allows."""
    first, *others = terms
    for way in others:
        tolerance = 0.1 if precision == "bf16" else 1e-2 if way.cached else 1e-3
        for name, value in terms[first].items():
            if abs(terms[way][name] - value) > tolerance * max(1, value):
                raise ValueError(f"the loss {name!r} is {value:.5f} by {first.name!r}, {terms[way][name]:.5f} by {way.name!r}")


def measure_in_turns(setting: Setting, ways: tuple[Way, ...], rounds: int) -> dict[Way, float]:
    """Seconds of a step, after a look at the losses of the first one."""
    accelerator = Accelerator(cpu=setting.device == "cpu", mixed_precision=setting.precision)
    trainings = {way: Training(way, setting, accelerator) for way in ways}
    terms = {way: {name: value.item() for name, value in training().items()} for way, training in trainings.items()}
    check_losses(terms, setting.precision)
    return time_in_turns(trainings, rounds)


def measure_alone(setting: Setting, way: Way) -> tuple[float, float]:
    """Peak memory in GB and work in TFLOP of a step."""
    accelerator = Accelerator(cpu=setting.device == "cpu", mixed_precision=setting.precision)
    training = Training(way, setting, accelerator)
    with FlopCounterMode(display=False) as counter:
        training()
    training()  # from the second step on there is the state of the optimiser
    return peak_memory(accelerator.device) / 1e9, counter.get_total_flops() / 1e12


def in_a_process(function, *arguments):
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as executor:
        return executor.submit(function, *arguments).result()


def measure(setting: Setting, ways: tuple[Way, ...], rounds: int, peak_tflops: float | None) -> None:
    in_a_process(write_data, setting)
    alone = {way: in_a_process(measure_alone, setting, way) for way in ways}
    seconds = in_a_process(measure_in_turns, setting, ways, rounds)
    rows = []
    for way, (memory, work) in alone.items():
        cells = [f"{seconds[way]:.3g}", f"{seconds[ways[0]] / seconds[way]:.1f}", f"{setting.batch_size / seconds[way]:.1f}"]
        share = [f"{100 * work / seconds[way] / peak_tflops:.0f} %"] if peak_tflops else []
        rows.append([way.name, *cells, f"{work:.2f}", *share, f"{memory:.2f} GB"])
    header = ["way", "s a step", "speed", "samples/s", "TFLOP a step", *["of the peak"] * bool(peak_tflops)]
    print(f"\nStage {setting.stage}, CLIP ViT-{setting.size}, batches of {setting.batch_size}, {NAMES[setting.precision]}:\n")
    print_table([*header, "peak memory"], rows)


def main(
    device: Annotated[Literal["cpu", "cuda"], typer.Option(help="Where to train.")] = "cpu",
    size: Annotated[Literal["base-patch32", "large-patch14", "tiny"], typer.Option(help="Of the CLIP.")] = "base-patch32",
    batch_size: Annotated[int, typer.Option(help="Samples in a step.")] = 32,
    rounds: Annotated[int, typer.Option(help="Timed rounds.")] = 3,
    peak_tflops: Annotated[float | None, typer.Option(help="What the device can do in bfloat16, by its data sheet.")] = None,
) -> None:
    where = f"{torch.get_num_threads()} threads" if device == "cpu" else torch.cuda.get_device_name()
    print(f"torch {torch.__version__}, {where}", flush=True)
    tables = [("no", WAYS, batch_size)] if device == "cpu" else []  # on a GPU nobody trains in float32
    tables += [("bf16", WAYS, batch_size), ("bf16", GRAD_CACHE_WAYS, GRAD_CACHE_BATCH)]
    for stage in (1, 2):
        for precision, ways, samples in tables:
            with tempfile.TemporaryDirectory() as folder:
                measure(Setting(stage, size, samples, device, precision, Path(folder)), ways, rounds, peak_tflops)


if __name__ == "__main__":
    typer.run(main)
