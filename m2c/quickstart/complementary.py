"""What a captioner and a language model add to the models of the quickstart: complementary retrieval (CVSI), part by part."""

from pathlib import Path

from m2c.encoding import Extractor
from m2c.evaluation.complementary import Complementary, ComplementaryOptions
from m2c.evaluation.scenes_benchmark import ScenesBenchmark
from m2c.retrieval.complementary import Fusion
from modeling_m2c import M2CModel
from processing_m2c import M2CProcessor


CAPTIONS = 5


def complementary_rows(
    model: M2CModel, processor: M2CProcessor, benchmark: ScenesBenchmark, cache: Path
) -> dict[str, dict[str, float]]:
    """Figures of each part alone, of pairs of them and of all, without and with captions of the gallery.

    Args:
        model: a retriever.
        processor: its processor.
        benchmark: the test set.
        cache: folder for features and texts, which several models share.
    """
    options = ComplementaryOptions("scenes", "scenes", captions=CAPTIONS)
    helpers = Complementary(options, "scenes", cache, batch_size=256, say=lambda _: None)
    modifications = [captions[0] for captions in benchmark.benchmark.queries["captions"]]
    extractor = Extractor(model, processor, cache)
    features = helpers.encode(extractor, benchmark.benchmark, [modifications], processor.composing_template)
    rows = {}
    for gamma, suffix in ((0.0, ""), (helpers.fusion.gamma, ", captioned gallery")):
        for name, fusion in parts(helpers.fusion, gamma).items():
            rows[name + suffix] = benchmark.score(*features.fuse(fusion))
    return rows


def parts(fusion: Fusion, gamma: float) -> dict[str, Fusion]:
    """Every selection of f1, f2 and f3, weighed among each other as `fusion` does."""
    weights = {"f1": fusion.alpha, "f2": fusion.beta, "f3": 1 - fusion.alpha - fusion.beta}
    selections = (("f1",), ("f2",), ("f3",), ("f1", "f2"), ("f1", "f3"), ("f2", "f3"), ("f1", "f2", "f3"))
    found = {}
    for selection in selections:
        # A part without weight of its own still has all of it when it is alone.
        shares = {name: weights[name] or 1e-9 for name in selection}
        total = sum(shares.values())
        alpha, beta = shares.get("f1", 0) / total, shares.get("f2", 0) / total
        found[" + ".join(selection)] = Fusion(alpha, beta, gamma, fusion.caption_feature)
    return found
