"""mteb, as a client that knows nothing of this package, measures what `m2c evaluate` measures."""

import re
from pathlib import Path

import pytest
import torch
from datasets import Dataset

from m2c.checkpoints import load_model, load_processor, save_retriever
from m2c.data.benchmarks.scenes import load_scenes
from m2c.evaluation.evaluate import Options, evaluate


mteb = pytest.importorskip("mteb")
sentence_transformers = pytest.importorskip("sentence_transformers")

from mteb.abstasks.retrieval import AbsTaskRetrieval  # noqa: E402
from mteb.abstasks.task_metadata import TaskMetadata  # noqa: E402


class ComposedScenes(AbsTaskRetrieval):
    """The test set of scenes: image and text find an image; the reference image itself is no answer."""

    # A query carries the id of its reference image.
    ignore_identical_ids = True
    k_values = (1, 5, 10)
    metadata = TaskMetadata(
        name="ComposedScenes",
        description="Composed image retrieval on drawn scenes.",
        reference=None,
        dataset={"path": "scenes", "revision": "1"},
        type="Any2AnyRetrieval",
        category="it2i",
        modalities=["image", "text"],
        eval_splits=["test"],
        eval_langs=["eng-Latn"],
        main_score="recall_at_1",
        date=("2026-01-01", "2026-01-01"),
        domains=["Constructed"],
        task_subtypes=[],
        license="apache-2.0",
        annotations_creators="derived",
        dialect=[],
        sample_creation="created",
        bibtex_citation="",
    )

    def __init__(self, benchmark):
        super().__init__()
        self.benchmark = benchmark

    def load_data(self, **_) -> None:
        gallery, queries = self.benchmark.gallery, self.benchmark.queries
        pictures = {name: self.benchmark.picture(position) for name, position in self.benchmark.positions().items()}
        ids = queries["reference_id"]
        assert len(set(ids)) == len(ids)
        asked = {
            "id": list(ids),
            "image": [pictures[name] for name in ids],
            "text": [captions[0] for captions in queries["captions"]],
        }
        split = {
            "corpus": Dataset.from_dict({"id": gallery["id"], "image": list(pictures.values())}),
            "queries": Dataset.from_dict(asked),
            "relevant_docs": {name: {target: 1} for name, target in zip(ids, queries["target_id"])},
            "top_ranked": None,
        }
        self.dataset = {"default": {"test": split}}
        self.data_loaded = True


@pytest.fixture(scope="module")
def retriever(tmp_path_factory) -> str:
    """The shipped CLIP with a mapper that nobody trained: of real queries it answers some."""
    folder = tmp_path_factory.mktemp("mteb") / "retriever"
    torch.manual_seed(0)  # of some mappers two answers are so near each other that rounding orders them
    save_retriever(load_model("scenes").eval(), load_processor("scenes"), folder)
    return str(folder)


def block_about_mteb() -> str:
    """From the documentation, as mteb takes what it does not know for text only."""
    text = Path(__file__).parents[1].joinpath("docs", "sharing.md").read_text(encoding="utf-8")
    (block,) = [code for code in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if "mteb" in code]
    return block


def test_mteb_gives_the_recall_of_m2c_evaluate(retriever, tmp_path):
    benchmark = load_scenes(num_queries=40)
    names = {"encoder": sentence_transformers.SentenceTransformer(retriever, trust_remote_code=True)}
    exec(block_about_mteb(), names)
    result = mteb.evaluate(names["model"], ComposedScenes(benchmark), cache=None, encode_kwargs={"batch_size": 16})
    theirs = result.task_results[0].scores["test"][0]
    ours = evaluate(retriever, [benchmark], Options(cache_dir=tmp_path), say=lambda _: None).record["figures"]
    assert 0 < ours["R@10"] < 100
    for k in (1, 5, 10):
        assert theirs[f"recall_at_{k}"] * 100 == pytest.approx(ours[f"R@{k}"])
