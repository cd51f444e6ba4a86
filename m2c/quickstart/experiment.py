"""The quickstart: both stages on scenes, against the obvious alternatives."""

import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch

from hub_cards import write_card, write_results
from m2c.checkpoints import load_model, load_processor
from m2c.data import scenes
from m2c.evaluation.baselines import add, slerp
from m2c.evaluation.evaluate import Options, evaluate
from m2c.evaluation.scenes_benchmark import ScenesBenchmark
from m2c.output_folder import new_folder
from m2c.training import TrainingConfig, build_data, train
from m2c.training.presets import PRESETS
from modeling_m2c import M2CModel
from processing_m2c import M2CProcessor

from .complementary import complementary_rows
from .picture import draw_retrieval
from .report import write_report


@dataclass(frozen=True)
class Settings:
    """How much of everything. The rest is what `train_accelerate.py` uses for scenes."""

    pairs: int
    stage1_steps: int
    triplets: int
    stage2_steps: int
    queries: int


_STAGE1, _STAGE2 = PRESETS["scenes", 1], PRESETS["scenes", 2]
FULL = Settings(
    pairs=_STAGE1["max_samples"],
    stage1_steps=_STAGE1["max_steps"],
    triplets=_STAGE2["max_samples"],
    stage2_steps=_STAGE2["max_steps"],
    queries=500,
)
QUICK = Settings(pairs=1500, stage1_steps=60, triplets=800, stage2_steps=80, queries=100)

SLERP_SHARE = 0.35


Rows = dict[str, dict[str, float]]

# What answers: the composed query alone, or together with what a captioner and a language model write.
METHODS = ("plain", "cvsi")


def quickstart(
    output: Path, settings: Settings = FULL, seed: int = 0, method: str = "plain", say: Callable[[str], None] = print
) -> dict:
    """Trains, measures and saves; returns what `report.json` holds.

    Args:
        output: folder to write `report.json`, `report.md`, `retrieval.png` and `model/` to; it appears when all is done.
        settings: sizes.
        seed: of training data, weights and order. The test set is always the same.
        method: one of [`METHODS`].
        say: prints a line of progress.

    Raises:
        FileExistsError: if `output` exists and is not empty. Nothing in it is touched.
    """
    with new_folder(output) as folder:
        started = time.time()
        rows, complementary, benchmark, stage2_queries = _experiment(folder, settings, seed, method, say)
        options = " --quick" * (settings == QUICK) + " --method cvsi" * (method == "cvsi")
        report = {
            "command": f"m2c quickstart{options} --seed {seed}",
            "settings": asdict(settings),
            "seed": seed,
            "gallery": len(benchmark.gallery),
            "rows": rows,
            "complementary": complementary,
            "seconds": round(time.time() - started),
        }
        write_report(folder, report)
        draw_retrieval(folder / "retrieval.png", benchmark, stage2_queries)
        _write_card(folder, benchmark)
    return report


def _write_card(folder: Path, benchmark: ScenesBenchmark) -> None:
    """The card of the model, with figures measured as `m2c evaluate` measures them, and the picture."""
    model, cache = folder / "model", folder / "cache"
    shutil.copy(folder / "retrieval.png", model)
    evaluation = evaluate(str(model), [benchmark.benchmark], Options(cache_dir=cache), say=lambda _: None)
    shutil.rmtree(cache)
    write_results(model, [evaluation.record])
    write_card(model)


def has_fast_bf16() -> bool:
    """Whether this machine computes in bfloat16 natively; elsewhere it would be slower than float32."""
    if torch.cuda.is_available():
        return torch.cuda.is_bf16_supported()
    # Older releases of torch do not tell.
    capabilities = getattr(torch.cpu, "get_capabilities", dict)()
    return any(capabilities.get(name, False) for name in ("avx512_bf16", "amx_bf16"))


def _experiment(
    folder: Path, settings: Settings, seed: int, method: str, say: Callable[[str], None]
) -> tuple[Rows, dict[str, Rows], ScenesBenchmark, torch.Tensor]:
    """Figures of every row, those of complementary retrieval by model, the benchmark, and stage 2's query features."""
    shared = {
        "seed": seed,
        "mixed_precision": "bf16" if has_fast_bf16() else "no",
        "cache_dir": str(folder / "cache"),  # of its own, so that all of the work is measured, and none is left behind
    }
    stage1 = TrainingConfig(
        output_dir=str(folder / "stage1"), max_samples=settings.pairs, max_steps=settings.stage1_steps, **shared
    )
    mapper_only = replace(stage1, output_dir=str(folder / "mapper_only"), mapper_only=True, injection_layers=None)
    stage2 = TrainingConfig(
        stage=2,
        model=stage1.output_dir,
        output_dir=str(folder / "model"),
        max_samples=settings.triplets,
        max_steps=settings.stage2_steps,
        reference_negatives=True,
        **shared,
    )

    say("1/5  scenes and the shipped CLIP: drawing and encoding the gallery")
    clip, processor = load_model("scenes").eval(), load_processor("scenes")
    benchmark = ScenesBenchmark.encode(scenes.composed_retrieval(settings.queries), clip, processor)
    rows = _untrained_rows(benchmark, clip, processor)

    say(f"2/5  drawing and encoding {settings.pairs} training images, each augmented once")
    build_data(stage1, clip, processor)

    say("3/5  for comparison: a token mapper alone (Pic2Word)")
    mapper = train(mapper_only)
    rows["mapper only (Pic2Word)"] = benchmark.score(benchmark.queries(*mapper))

    say("4/5  M2C stage 1: token mapper and visual semantic injection")
    rows["M2C stage 1"] = benchmark.score(benchmark.queries(*train(stage1)))

    say(f"5/5  M2C stage 2: composing adapters on {settings.triplets} triplets")
    composing = train(stage2)
    queries = benchmark.queries(*composing)
    rows["M2C stage 2"] = benchmark.score(queries)
    rows["ceiling: caption of the target"] = benchmark.score(benchmark.texts("target_caption", clip, processor))
    complementary = {}
    if method == "cvsi":
        say("and  CVSI: captions of references and gallery, edited captions, added objects")
        retrievers = {"mapper only": mapper, "M2C stage 2": composing}
        complementary = complementary_rows(retrievers, benchmark, Path(stage1.cache_dir))
    shutil.rmtree(stage1.output_dir)
    shutil.rmtree(mapper_only.output_dir)
    shutil.rmtree(stage1.cache_dir)
    return rows, complementary, benchmark, queries


def _untrained_rows(benchmark: ScenesBenchmark, clip: M2CModel, processor: M2CProcessor) -> Rows:
    images, texts = benchmark.reference_features, benchmark.texts("modification", clip, processor)
    return {
        "image only": benchmark.score(images),
        "text only": benchmark.score(texts),
        "image + text": benchmark.score(add(images, texts)),
        f"slerp {SLERP_SHARE}": benchmark.score(slerp(images, texts, SLERP_SHARE)),
    }
