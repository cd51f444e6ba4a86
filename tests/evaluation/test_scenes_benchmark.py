import pytest
import torch

from m2c.checkpoints import load_model, load_processor
from m2c.data import scenes
from m2c.encoding import encode_images, encode_queries
from m2c.evaluation.baselines import add
from m2c.evaluation.scenes_benchmark import ScenesBenchmark


@pytest.fixture(scope="module")
def clip():
    return load_model("scenes").eval(), load_processor("scenes")


def test_the_shipped_clip_knows_its_world(clip):
    """The whole test set of the quickstart: everything downstream scales with the ceiling."""
    benchmark = ScenesBenchmark.encode(scenes.composed_retrieval(500), *clip)
    assert benchmark.gallery.shape == (3000, 128)
    assert benchmark.score(benchmark.texts("target_caption", *clip))["R@1"] >= 78
    texts = benchmark.texts("modification", *clip)
    alone = [benchmark.score(features)["R@1"] for features in (texts, benchmark.reference_features)]
    assert benchmark.score(add(benchmark.reference_features, texts))["R@1"] > max(alone), "neither is enough by itself"


def test_scores_of_perfect_and_hopeless_queries(clip):
    data = scenes.composed_retrieval(20)
    gallery = torch.eye(120)
    benchmark = ScenesBenchmark(data, gallery)
    targets = torch.tensor(data["queries"][:]["target_id"])
    perfect = benchmark.score(gallery[targets])
    assert perfect["R@1"] == perfect["subset R@1"] == 100 and perfect["mAP@10"] > 90
    references = torch.tensor(data["queries"][:]["reference_id"])
    assert benchmark.score(gallery[references] - gallery[targets])["R@10"] == 0
    assert not (benchmark.rank(gallery[references], 10) == references[:, None]).any(), "the reference is left out"


def test_batches_change_nothing(clip):
    data = scenes.triplets(7)
    images, texts = data["reference"][:], data["modification"][:]
    torch.testing.assert_close(encode_images(*clip, images, batch_size=3), encode_images(*clip, images), atol=1e-5, rtol=1e-5)
    composed = encode_queries(*clip, images, texts)
    torch.testing.assert_close(encode_queries(*clip, images, texts, batch_size=2), composed, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(composed.norm(dim=-1), torch.ones(7))
