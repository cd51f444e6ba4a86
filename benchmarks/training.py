"""Training steps of both stages: time and memory, against the way of the method's authors.

    python benchmarks/training.py                                       # some six minutes on two quiet cores, 5 GB of memory
    python benchmarks/training.py --device cuda --size large-patch14 --batch-size 256 --peak-tflops 989

A CLIP of the given size with random weights and default M2C modules, random pictures, captions and modification texts of 8 to
20 tokens. A step is forward, loss, backward and optimiser; reading and augmenting pictures is left out, which favours what
encodes them in every step. "The authors' way" encodes the pictures in every step and pads every text to 77 tokens, written here
as the baseline with losses of its own; it gets our modules, without the injection that has no effect, and no gradient for what
is frozen. All ways start from the same weights and must give the same losses; then they take steps in turns, within one
process. Peak memory is that of a process of its own for each way, with everything in it; on a GPU, of its tensors.

The work of a step is counted, in multiplications and additions of matrices and convolutions.
"""

import tempfile
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated, Literal

import torch
import typer
from accelerate import Accelerator
from safetensors.torch import load_file, save_file
from timing import print_table, time_in_turns
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode
from transformers import BatchFeature

from m2c.training import TrainingConfig
from m2c.training.adapters import add_composing_adapter
from m2c.training.features import encode_pairs, encode_triplets
from m2c.training.grad_cache import GradCache
from m2c.training.optimization import build_optimizer
from m2c.training.tasks import ComposingTask, MappingTask
from modeling_m2c import M2CConfig, M2CModel


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
}
CONTEXT_LENGTH = 77
START, END = 49406, 49407
MAPPING_PROMPT = [START, 320, 1125, 539, 265, END]  # "a photo of *"
PSEUDO_WORD_POSITION = 4
# Losses are compared at a temperature at which even features of random weights tell images apart.
SHARP_TAU = 0.002


@dataclass(frozen=True)
class Way:
    """One way of taking the same training step."""

    name: str
    trimmed: bool = False
    cached: bool = False
    low_precision: bool = False
    chunk_size: int | None = None
    is_baseline: bool = False


WAYS = (
    Way("the authors' way", is_baseline=True),
    Way("trimmed prompts", trimmed=True),
    Way("cached features", cached=True),
    Way("trimmed, cached", trimmed=True, cached=True),
    Way("all: trimmed, cached, bfloat16", trimmed=True, cached=True, low_precision=True),
    Way("all but the cache", trimmed=True, low_precision=True),
)
# The whole batch at once, and a quarter of it at a time. Dropout draws for 32 rows at least, so smaller chunks cost more.
GRAD_CACHE_WAYS = (
    Way("all", trimmed=True, cached=True, low_precision=True),
    Way("all, in chunks of 32", trimmed=True, cached=True, low_precision=True, chunk_size=32),
)
GRAD_CACHE_BATCH = 128


@dataclass(frozen=True)
class Setting:
    """What all ways of a run have in common."""

    stage: int
    size: str
    batch_size: int
    device: str
    folder: Path = field(repr=False)

    def path(self, kind: str, trimmed: bool) -> Path:
        return self.folder / f"stage{self.stage}-{kind}-{'trimmed' if trimmed else 'padded'}.safetensors"


class Training:
    """Model, optimiser and data of one way; a call takes a step."""

    def __init__(self, way: Way, setting: Setting):
        self.way, self.setting = way, setting
        torch.manual_seed(0)
        self.config = TrainingConfig(stage=setting.stage, dataset="pictures", model="clip")
        model = M2CModel(M2CConfig(**CLIP_SIZES[setting.size])).eval()
        if setting.stage == 2:
            add_composing_adapter(model, self.config)
        model.to(setting.device)
        if setting.device == "cpu":
            model.set_attn_implementation("eager")  # as in training: the backward pass of SDPA is slow there
        prompt = torch.tensor([padded(MAPPING_PROMPT, len(MAPPING_PROMPT) if way.trimmed else CONTEXT_LENGTH)])
        prompt = BatchFeature({"input_ids": prompt, "pseudo_word_position": torch.tensor([PSEUDO_WORD_POSITION])})
        task = MappingTask if setting.stage == 1 else ComposingTask
        self.task = task(model, prompt, self.config).to(setting.device)
        self.optimizer = build_optimizer(self.task, self.config)
        # On a GPU everybody trains in low precision.
        self.low_precision = way.low_precision or setting.device == "cuda"
        self.autocast = partial(torch.autocast, setting.device, torch.bfloat16) if self.low_precision else nullcontext
        self.grad_cache = None
        if way.chunk_size is not None:
            accelerator = Accelerator(mixed_precision="bf16", cpu=setting.device == "cpu")
            self.grad_cache = GradCache(self.task, accelerator, way.chunk_size)

    def __call__(self) -> None:
        self.task.train()
        self.task.place.begin(0, 0)
        self.optimizer.zero_grad()
        if self.grad_cache is None:
            self.losses()["loss"].backward()
        else:
            self.grad_cache.backward(self._batch())
        torch.nn.utils.clip_grad_norm_([p for p in self.task.parameters() if p.requires_grad], self.config.max_grad_norm)
        self.optimizer.step()
        if self.setting.device == "cuda":
            torch.cuda.synchronize()

    def losses(self) -> dict[str, torch.Tensor]:
        batch = self._batch()
        with self.autocast():
            if self.way.is_baseline:
                return (authors_mapping_losses if self.setting.stage == 1 else authors_composing_losses)(self.task, batch)
            features = self.task(**batch)
        return self.task.loss(features, batch)

    def _batch(self) -> dict[str, torch.Tensor]:
        """What the forward pass is given: from the cache in half precision, or encoded now. The baseline encodes by itself."""
        path = self.setting.path("features" if self.way.cached else "inputs", self.way.trimmed)
        batch = {name: tensor.to(self.setting.device) for name, tensor in load_file(path).items()}
        if self.way.cached:
            return {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in batch.items()}
        if self.way.is_baseline:
            return batch
        with self.autocast():
            return self.encode(batch)

    def encode(self, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return (encode_pairs if self.setting.stage == 1 else encode_triplets)(self.task.model, batch)


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


def padded(ids: list[int], length: int) -> list[int]:
    return ids + [END] * (length - len(ids))


def make_texts(batch_size: int, trimmed: bool, prefix: list[int] = MAPPING_PROMPT[:1]) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids and mask of random texts; padded to the context length they need no mask, as the tower looks back only."""
    lengths = torch.randint(8, 21, (batch_size,)).tolist()
    texts = [prefix + torch.randint(1000, 40000, (n - len(prefix) - 1,)).tolist() + [END] for n in lengths]
    width = max(lengths) if trimmed else CONTEXT_LENGTH
    masks = [[1] * (n if trimmed else width) + [0] * (width - n if trimmed else 0) for n in lengths]
    return torch.tensor([padded(text, width) for text in texts]), torch.tensor(masks)


def write_data(setting: Setting, ways: tuple[Way, ...]) -> None:
    """Inputs of a batch, and features of them in half precision as the cache keeps them; prompts trimmed or not."""
    for trimmed in {way.trimmed for way in ways}:
        torch.manual_seed(0)
        names = ("view_a", "view_b") if setting.stage == 1 else ("reference", "target")
        # Large patches of colour: pixels of noise would all look the same to the vision tower.
        inputs = {name: F.interpolate(3 * torch.randn(setting.batch_size, 3, 4, 4), 224) for name in names}
        inputs["caption_ids"], inputs["caption_mask"] = make_texts(setting.batch_size, trimmed)
        if setting.stage == 2:
            inputs["input_ids"], inputs["attention_mask"] = make_texts(setting.batch_size, trimmed, MAPPING_PROMPT[:-1])
            inputs["pseudo_word_position"] = torch.full((setting.batch_size,), PSEUDO_WORD_POSITION)
        save_file(inputs, setting.path("inputs", trimmed))
        features = Training(Way("", trimmed=trimmed), setting)._batch()
        in_half = {name: x.half() if x.is_floating_point() else x for name, x in features.items()}
        save_file({name: x.cpu().contiguous() for name, x in in_half.items()}, setting.path("features", trimmed))


def check_losses(trainings: dict[Way, Training]) -> None:
    """Raises `SystemExit` unless all ways have the losses of the first, as far as their precision allows."""
    found = {}
    for way, training in trainings.items():
        training.task.eval()
        published, training.config.tau = training.config.tau, SHARP_TAU
        with torch.no_grad():
            found[way] = {name: float(value) for name, value in training.losses().items()}
        training.config.tau = published
    first = next(iter(trainings))
    for way, training in trainings.items():
        tolerance = 0.1 if training.low_precision else 1e-2 if way.cached else 1e-3
        for name, value in found[first].items():
            if abs(found[way][name] - value) > tolerance * max(1, value):
                raise SystemExit(f"the loss {name!r} is {value:.5f} by {first.name!r}, {found[way][name]:.5f} by {way.name!r}")


def measure_alone(way: Way, setting: Setting) -> tuple[float, float]:
    """Peak memory in GB and work in TFLOP of a step, in a process of its own."""
    training = Training(way, setting)
    with FlopCounterMode(display=False) as counter:
        training()
    training()  # from the second step on there is the state of the optimiser
    if setting.device == "cuda":
        peak = torch.cuda.max_memory_allocated()
    else:
        # Not `resource`: what that tells begins with the memory of the parent.
        (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:")]
        peak = 1024 * int(line.split()[1])
    return peak / 1e9, counter.get_total_flops() / 1e12


def measure(setting: Setting, ways: tuple[Way, ...], rounds: int, peak_tflops: float | None) -> None:
    write_data(setting, ways)
    alone = {}
    for way in ways:
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as executor:
            alone[way] = executor.submit(measure_alone, way, setting).result()
    trainings = {way: Training(way, setting) for way in ways}
    check_losses(trainings)
    seconds = time_in_turns(trainings, rounds)
    rows = []
    for way, (memory, work) in alone.items():
        cells = [f"{seconds[way]:.3g}", f"{seconds[ways[0]] / seconds[way]:.1f}", f"{setting.batch_size / seconds[way]:.1f}"]
        share = [f"{100 * work / seconds[way] / peak_tflops:.0f} %"] if peak_tflops else []
        precision = "bfloat16" if trainings[way].low_precision else "float32"
        rows.append([way.name, precision, *cells, f"{work:.2f}", *share, f"{memory:.2f} GB"])
    header = ["way", "precision", "s a step", "speed", "samples/s", "TFLOP a step", *["of the peak"] * bool(peak_tflops)]
    print(f"\nStage {setting.stage}, CLIP ViT-{setting.size}, batches of {setting.batch_size}:\n")
    print_table([*header, "peak memory"], rows)


def main(
    device: Annotated[Literal["cpu", "cuda"], typer.Option(help="Where to train.")] = "cpu",
    size: Annotated[Literal["base-patch32", "large-patch14"], typer.Option(help="Of the CLIP.")] = "base-patch32",
    batch_size: Annotated[int, typer.Option(help="Samples in a step.")] = 32,
    rounds: Annotated[int, typer.Option(help="Timed rounds.")] = 3,
    peak_tflops: Annotated[float | None, typer.Option(help="What the device can do in bfloat16, by its data sheet.")] = None,
) -> None:
    where = f"{torch.get_num_threads()} threads" if device == "cpu" else torch.cuda.get_device_name()
    print(f"torch {torch.__version__}, {where}", flush=True)
    for stage in (1, 2):
        for ways, samples in ((WAYS, batch_size), (GRAD_CACHE_WAYS, GRAD_CACHE_BATCH)):
            with tempfile.TemporaryDirectory() as folder:
                measure(Setting(stage, size, samples, device, Path(folder)), ways, rounds, peak_tflops)


if __name__ == "__main__":
    typer.run(main)
