"""What a captioner and a language model add to the models of the quickstart: complementary retrieval (CVSI), part by part."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from m2c.encoding import Extractor
from m2c.evaluation.complementary import Complementary, ComplementaryOptions
from m2c.evaluation.scenes_benchmark import ScenesBenchmark
from m2c.retrieval.complementary import Fusion
from modeling_m2c import M2CModel
from processing_m2c import M2CProcessor


CAPTIONS = 5
# Of the reference image in a pair with another part: the weights give it none, but in those for FashionIQ it has this.
REFERENCE_SHARE = 0.2


def complementary_rows(
    retrievers: Mapping[str, tuple[M2CModel, M2CProcessor]], benchmark: ScenesBenchmark, cache: Path
) -> dict[str, dict[str, dict[str, float]]]:
    """By retriever, figures of each part alone, of pairs of them and of all, without and with captions of the gallery.

    Args:
        retrievers: models and their processors, by name.
        benchmark: the test set.
        cache: folder for features and texts, which all share.
    """
    options = ComplementaryOptions("scenes", "scenes", CAPTIONS)
    helpers = Complementary(options, "scenes", cache, batch_size=256, say=lambda _: None)
    return {name: _rows(helpers, Extractor(*retriever, cache), benchmark) for name, retriever in retrievers.items()}


def _rows(helpers: Complementary, extractor: Extractor, benchmark: ScenesBenchmark) -> dict[str, dict[str, float]]:
    modifications = [captions[0] for captions in benchmark.benchmark.queries["captions"]]
    template = extractor.processor.composing_template
    features = helpers.encode(extractor, benchmark.benchmark, [modifications], template)
    rows = {}
    for gamma, suffix in ((0.0, ""), (helpers.fusion.gamma, ", captioned gallery")):
        for name, fusion in parts(helpers.fusion, gamma).items():
            rows[name + suffix] = benchmark.score(*features.fuse(fusion))
    return rows


def parts(fusion: Fusion, gamma: float) -> dict[str, Fusion]:
    """Every selection of f1, f2 and f3.

    f1 and f2 are weighed among each other as `fusion` does; f3 has a share of its own in a pair, and in all three what `fusion`
    leaves it.
    """
    of_two = fusion.alpha / (fusion.alpha + fusion.beta)
    others = 1 - REFERENCE_SHARE
    weights = {
        "f1": (1, 0),
        "f2": (0, 1),
        "f3": (0, 0),
        "f1 + f2": (of_two, 1 - of_two),
        "f1 + f3": (others, 0),
        "f2 + f3": (0, others),
        "f1 + f2 + f3": (fusion.alpha, fusion.beta),
    }
    return {name: replace(fusion, alpha=alpha, beta=beta, gamma=gamma) for name, (alpha, beta) in weights.items()}
