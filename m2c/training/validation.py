"""What is measured while a run trains: recall on held-out rows, and a benchmark as `m2c evaluate` measures it."""

from dataclasses import dataclass, replace
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list, gather_object
from torch.utils.data import DataLoader

from m2c.data.benchmarks import Benchmark, load_benchmark
from m2c.data.benchmarks.scenes import load_scenes
from m2c.encoding import Extractor
from m2c.evaluation.evaluate import DEFAULTS, how_to_ask, query_features
from m2c.evaluation.metrics import rank_gallery, recall_at_k
from m2c.evaluation.protocols import mean_of_parts, measure, protocol_of, rank
from m2c.evaluation.run import check_benchmarks
from modeling_m2c import M2CModel
from processing_m2c import M2CProcessor

from .config import TrainingConfig
from .features.encoding import CachedFeatures, widen
from .tasks.stages import ComposingTask, MappingTask


# The figure by which a benchmark's owners rank methods. Of all others it is R@1.
MAIN_FIGURES = {"circo": "mAP@5", "fashioniq": "R@10", "genecis": "subset R@1"}
HELD_OUT_FIGURE = "validation_recall@1"
BATCH_SIZE = 256


def read_benchmark(config: TrainingConfig) -> list[Benchmark]:
    """The parts of `config.validation_benchmark`, after a look at every image; none if no benchmark is asked for.

    Raises:
        ValueError: if files or images are missing or not of the form, or the targets are secret.
    """
    name = config.validation_benchmark
    if name is None:
        return []
    parts = [load_scenes()] if name == "scenes" else load_benchmark(name, config.validation_root)
    if any(None in part.queries["target_id"] for part in parts):
        raise ValueError(f"the targets of {config.validation_root} are secret; validation needs a benchmark that has them")
    return check_benchmarks(parts, allow_missing=False, say=lambda _: None)


class Validation:
    """All that a run measures, on every process together.

    Args:
        accelerator: of the run.
        task: what is trained, not wrapped.
        held_out: features of rows held out of training, if there are any.
        benchmark: of the model of the task, if there is any.
    """

    def __init__(
        self,
        accelerator: Accelerator,
        task: MappingTask | ComposingTask,
        held_out: CachedFeatures | None,
        benchmark: "BenchmarkValidation | None",
    ):
        self.accelerator, self.task, self.held_out, self.benchmark = accelerator, task, held_out, benchmark

    @property
    def metric(self) -> str | None:
        """The figure that early stopping looks at: of the benchmark, if there is one; `None` if nothing is measured."""
        if self.benchmark is not None:
            return self.benchmark.metric
        return None if self.held_out is None else HELD_OUT_FIGURE

    @torch.no_grad()
    def measure(self) -> dict[str, float]:
        """Figures by name, the same on every process. The task is left in eval mode, random states are left as they are.

        Raises:
            ValueError: if features are not finite.
        """
        self.task.eval()
        figures = {}
        # Loaders draw seeds, which would change the steps that follow.
        with torch.random.fork_rng(devices=[]):
            if self.held_out is not None:
                figures |= held_out_recall(self.task, self.held_out, self.accelerator)
            if self.benchmark is not None:
                figures |= self.benchmark.measure()
        # Those of the first process: machines may round differently, and all have to stop at the same step.
        return broadcast_object_list([figures])[0]


def held_out_recall(task: MappingTask | ComposingTask, held_out: CachedFeatures, accelerator: Accelerator) -> dict[str, float]:
    """Recall among the held-out rows: of view B in stage 1, or of the caption if there are no images, of the target image in
    stage 2.

    Args:
        task: in eval mode.
        held_out: features of the rows.
        accelerator: of the run; its processes share the rows.

    Returns:
        `validation_recall@k` for k of 1, 5 and 10, as shares of one.
    """
    rows = list(range(len(held_out)))
    batches = [rows[start : start + BATCH_SIZE] for start in range(0, len(rows), BATCH_SIZE)]
    mine = batches[accelerator.process_index :: accelerator.num_processes]
    found = []
    for rows, batch in zip(mine, DataLoader(held_out, batch_sampler=mine, collate_fn=held_out.collate)):
        on_device = {name: tensor.to(accelerator.device) for name, tensor in batch.items()}
        features = task.retrieve(**widen(on_device))
        found.append((rows[0], *(part.cpu() for part in features)))
    found = sorted(gather_object(found), key=lambda part: part[0])
    _, queries, answers = zip(*found)
    rankings = rank_gallery(torch.cat(queries), torch.cat(answers), k=10)
    return {f"validation_recall@{k}": recall_at_k(rankings, range(len(held_out)), k) for k in (1, 5, 10)}


@dataclass(frozen=True)
class _Part:
    """A part of a benchmark.

    Args:
        benchmark: all of it.
        references: the same queries, with no more images than their references.
        gallery: features of all images, on the process that ranks; elsewhere `None`.
    """

    benchmark: Benchmark
    references: Benchmark
    gallery: torch.Tensor | None


class BenchmarkValidation:
    """A benchmark as `m2c evaluate` measures it, on a model in training.

    Images are encoded before training, or found in the store that `m2c evaluate` fills too: they depend on the frozen vision
    tower alone. So a measurement costs the queries only. Figures for each semantic aspect of CIRCO are left out.

    Args:
        parts: of the benchmark, with targets.
        model: on its device; trained in place.
        processor: its processor.
        cache_dir: where features of images are stored.
        num_workers: processes that read images, for each process of the run.

    Attributes:
        metric: name of the main figure.

    Raises:
        ValueError: if an image cannot be read.
    """

    def __init__(
        self,
        parts: list[Benchmark],
        model: M2CModel,
        processor: M2CProcessor,
        cache_dir: Path,
        num_workers: int = 0,
    ):
        self.extractor = Extractor(model.eval(), processor, cache_dir, num_workers=num_workers)
        self.asked = how_to_ask(model, processor, parts[0], DEFAULTS)
        self.protocol = replace(protocol_of(parts[0]), aspect_precision=None)
        self.name = parts[0].name
        self.metric = self._title(MAIN_FIGURES.get(self.name, "R@1"))
        self.parts = [self._prepare(part) for part in parts]

    @torch.no_grad()
    def measure(self) -> dict[str, float]:
        """The protocol's figures in percent, the mean of the parts if there are several, on the first process; elsewhere none.

        Every process has to call it, with the model in eval mode.
        """
        figures = []
        for part in self.parts:
            queries = query_features(self.extractor, part.references, self.asked)
            if part.gallery is not None:
                rankings = rank(part.benchmark, self.protocol, queries, part.gallery)
                figures.append(measure(part.benchmark, self.protocol, rankings))
        return {self._title(name): value for name, value in mean_of_parts(figures).items()} if figures else {}

    def _title(self, figure: str) -> str:
        return f"validation_{self.name}_{figure}".replace(" ", "_")

    def _prepare(self, part: Benchmark) -> _Part:
        references = _only_references(part)
        # Stores what is needed of these, from which the gallery takes what it needs.
        query_features(self.extractor, references, self.asked)
        gallery = self.extractor.gallery(part)
        return _Part(part, references, gallery if self.extractor.state.is_main_process else None)


def _only_references(benchmark: Benchmark) -> Benchmark:
    """The queries with no more images than they need: in a large gallery, already looking for each file takes its time."""
    place = benchmark.positions()
    positions = sorted({place[name] for name in benchmark.queries["reference_id"]})
    return replace(benchmark, gallery=benchmark.gallery.select(positions))
