"""Complementary retrieval (CVSI) on scenes: what captions, captions of the gallery and learned weights bring, and cost.

    m2c quickstart
    python benchmarks/complementary.py m2c-quickstart/model      # some twenty minutes on two cores

R@1 is that of the quickstart's test set (500 queries, gallery of 3,000), a mean over the models where several are given. Fixed
weights are those of CVSI's authors for CIRR; learned ones are the best of a grid on 500 other queries with a gallery of their
own (seed 1 of `m2c.data.scenes.composed_retrieval`), for each row anew. "each" edits every caption, "joined" all of them
together. New objects are named in the composed query or not. Texts are written from nothing for every number of captions, so
that their time can be told: for queries that is captions of references and the edits, for the gallery the captions of all other
images. They serve all models.
"""

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
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
HEAD = [
    *("captions", "new objects named", "gallery captioned", "R@1, fixed", "R@1, learned", "learned alpha, beta, gamma"),
    *("s, queries", "s, gallery"),
]


@dataclass(frozen=True)
class Texts:
    """How texts are made, and where those of one making are kept."""

    captions: int
    form: str
    folder: Path


@dataclass(frozen=True)
class Encoded:
    """Of each model the features, without and with new objects in the composed query, and what texts took in seconds."""

    benchmark: Benchmark
    plain: list[ComplementaryFeatures]
    with_objects: list[ComplementaryFeatures]
    seconds: dict[str, float]


def encode(models: list[str], benchmark: Benchmark, texts: Texts, features_folder: Path) -> Encoded:
    """The first model waits for what the store of texts lacks; the others find it there."""
    plain, with_objects, seconds = [], [], {}
    for name in models:
        extractor = Extractor(load_model(name).eval(), load_processor(name), features_folder)
        without_gallery, first = write(extractor, benchmark, texts, objects=False, weights="0.6,0.4,0")
        whole, rest = write(extractor, benchmark, texts, objects=True, weights="0.6,0.4,0.2")
        plain.append(replace(whole, composed=without_gallery.composed))
        with_objects.append(whole)
        spent = {"queries": first["captions"] + first["edits"], "objects": rest["edits"], "gallery": rest["captions"]}
        seconds = seconds or spent
    return Encoded(benchmark, plain, with_objects, seconds)


def write(
    extractor: Extractor, benchmark: Benchmark, texts: Texts, objects: bool, weights: str
) -> tuple[ComplementaryFeatures, dict[str, float]]:
    """Features, and the seconds that captions, edits and features took."""
    options = ComplementaryOptions("scenes", "scenes", texts.captions, form=texts.form, objects=objects, weights=weights)
    helpers = Complementary(options, "scenes", texts.folder, BATCH_SIZE, say=lambda _: None)
    modifications = [[row[0] for row in benchmark.queries["captions"]]]
    features = helpers.encode(extractor, benchmark, modifications, extractor.processor.composing_template)
    return features, helpers.costs[0]["seconds"]


def recall(benchmark: Benchmark, features: list[ComplementaryFeatures], fusion: Fusion) -> float:
    """R@1, the mean over models."""
    protocol = PROTOCOLS["scenes"]
    every = [measure(benchmark, protocol, rank(benchmark, protocol, *one.fuse(fusion), is_cosine=False)) for one in features]
    return sum(figures["R@1"] for figures in every) / len(every)


def rows(models: list[str], test: Benchmark, validation: Benchmark, folder: Path) -> Iterator[list[str]]:
    for captions, form in VARIANTS:
        texts = Texts(captions, form, folder / f"{captions}-{form}")
        encoded = encode(models, test, texts, folder)
        others = encode(models, validation, replace(texts, folder=folder / "validation"), folder)
        for objects in (False, True):
            for gamma in (0.0, PRESETS["cirr"].gamma):
                kind = [f"{captions}, {form}", "yes" if objects else "no", "yes" if gamma else "no"]
                seconds = encoded.seconds["queries"] + objects * encoded.seconds["objects"]
                cost = [f"{seconds:.0f}", f"{encoded.seconds['gallery']:.0f}" if gamma else "-"]
                yield [*kind, *recalls(encoded, others, objects, gamma), *cost]


def recalls(test: Encoded, validation: Encoded, objects: bool, gamma: float) -> list[str]:
    """R@1 with fixed and with learned weights, and the learned ones."""

    def figure(encoded: Encoded, fusion: Fusion) -> float:
        return recall(encoded.benchmark, encoded.with_objects if objects else encoded.plain, fusion)

    learned, _ = tune_fusion(lambda fusion: figure(validation, fusion), has_captions=gamma > 0)
    fixed = replace(PRESETS["cirr"], gamma=gamma)
    scores = (f"{figure(test, fusion):.1f}" for fusion in (fixed, learned))
    return [*scores, f"{learned.alpha:g}, {learned.beta:g}, {learned.gamma:g} ({learned.caption_feature})"]


def main(
    models: Annotated[list[str], typer.Argument(help="Retrievers over the CLIP of scenes, such as m2c-quickstart/model.")],
    queries: Annotated[int, typer.Option(min=1, help="Of the test set and of validation; fewer for a trial.")] = 500,
) -> None:
    test, validation = load_scenes(queries), load_scenes(queries, VALIDATION_SEED)
    with tempfile.TemporaryDirectory() as folder:
        print_table(HEAD, rows(models, test, validation, Path(folder)))


if __name__ == "__main__":
    typer.run(main)
