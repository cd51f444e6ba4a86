"""Complementary retrieval (CVSI) on scenes: what captions, captions of the gallery and learned weights bring, and cost.

    m2c quickstart
    python benchmarks/complementary.py m2c-quickstart/model      # some twenty minutes on two cores

Figures are those of the quickstart's test set (500 queries, gallery of 3,000), a mean over the models where several are given.
Fixed weights are those of CVSI's authors for CIRR; learned ones are the best of a grid on 500 other queries with a gallery of
their own (seed 1 of `m2c.data.scenes.composed_retrieval`), for each row anew. "each" edits every caption, "joined" all of them
together. Texts are written from nothing for every number of captions, so that their time can be told: for queries that is
captions of references and the edits, for the gallery the captions of all other images. They serve all models.
"""

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer
from timing import print_table

from m2c.checkpoints import load_model, load_processor
from m2c.data.benchmarks import Benchmark
from m2c.data.benchmarks.scenes import load_scenes
from m2c.encoding import Extractor
from m2c.evaluation.complementary import Complementary, ComplementaryOptions
from m2c.evaluation.protocols import PROTOCOLS, measure, rank
from m2c.retrieval.complementary import PRESETS, ComplementaryFeatures, Fusion, tune_fusion


VALIDATION_SEED = 1
BATCH_SIZE = 256
# Captions and form.
VARIANTS = ((1, "each"), (3, "each"), (5, "each"), (15, "each"), (5, "joined"), (15, "joined"))


def encode(
    models: list[str], benchmark: Benchmark, captions: int, form: str, features_folder: Path, texts_folder: Path
) -> tuple[list[ComplementaryFeatures], dict[str, float]]:
    """Features with each model, and the seconds that texts took the first of them."""
    seconds, found = {}, []
    for name in models:
        model, processor = load_model(name).eval(), load_processor(name)
        extractor = Extractor(model, processor, features_folder)
        texts = [[row[0] for row in benchmark.queries["captions"]]]
        for part, weights in (("queries", "0.6,0.4,0"), ("gallery", "0.6,0.4,0.2")):
            options = ComplementaryOptions("scenes", "scenes", captions, form=form, weights=weights)
            helpers = Complementary(options, "scenes", texts_folder, BATCH_SIZE, say=lambda _: None)
            features = helpers.encode(extractor, benchmark, texts, processor.composing_template)
            spent = helpers.costs[0]["seconds"]
            seconds.setdefault(part, spent["captions"] + spent["edits"])
        found.append(features)
    return found, seconds


def figures(benchmark: Benchmark, features: list[ComplementaryFeatures], fusion: Fusion) -> dict[str, float]:
    """The mean over models."""
    protocol = PROTOCOLS["scenes"]
    every = [measure(benchmark, protocol, rank(benchmark, protocol, *one.fuse(fusion), is_cosine=False)) for one in features]
    return {name: sum(one[name] for one in every) / len(every) for name in every[0]}


def main(
    models: Annotated[list[str], typer.Argument(help="Retrievers over the CLIP of scenes, such as m2c-quickstart/model.")],
    queries: Annotated[int, typer.Option(min=1, help="Of the test set and of validation; fewer for a trial.")] = 500,
) -> None:
    test, validation = load_scenes(queries), load_scenes(queries, VALIDATION_SEED)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for captions, form in VARIANTS:
            features, seconds = encode(models, test, captions, form, Path(folder), Path(folder, f"{captions}-{form}"))
            others, _ = encode(models, validation, captions, form, Path(folder), Path(folder, "validation"))
            for has_captions in (False, True):
                fixed = replace(PRESETS["cirr"], gamma=PRESETS["cirr"].gamma if has_captions else 0.0)
                learned, _ = tune_fusion(
                    lambda fusion, others=others: figures(validation, others, fusion)["R@1"], has_captions=has_captions
                )
                for kind, fusion in (("fixed", fixed), ("learned", learned)):
                    result = figures(test, features, fusion)
                    weights = f"{kind} {fusion.alpha:g}, {fusion.beta:g}, {fusion.gamma:g}"
                    cost = [f"{seconds['queries']:.0f}", f"{seconds['gallery']:.0f}" if has_captions else "-"]
                    rows.append([f"{captions} {form}", weights, *(f"{result[key]:.1f}" for key in ("R@1", "mAP@10")), *cost])
    print_table(["captions", "alpha, beta, gamma", "R@1", "mAP@10", "s for queries", "s for the gallery"], rows)


if __name__ == "__main__":
    typer.run(main)
