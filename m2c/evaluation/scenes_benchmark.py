"""Composed retrieval on scenes: the test set of the quickstart's table, encoded once for every model that shares its CLIP."""

from dataclasses import dataclass

import torch
from datasets import DatasetDict

from m2c.data.benchmarks.scenes import as_benchmark
from m2c.encoding import encode_images, encode_queries, encode_texts
from modeling_m2c import M2CModel
from processing_m2c import M2CProcessor

from .protocols import PROTOCOLS, measure, rank


METRICS = ("R@1", "R@5", "R@10", "subset R@1", "mAP@10")


@dataclass
class ScenesBenchmark:
    """What [`m2c.data.scenes.composed_retrieval`] drew, and the features of its gallery, by the protocol `"scenes"`."""

    data: DatasetDict
    gallery: torch.Tensor

    def __post_init__(self):
        self.benchmark = as_benchmark(self.data)

    @classmethod
    def encode(cls, data: DatasetDict, model: M2CModel, processor: M2CProcessor) -> "ScenesBenchmark":
        return cls(data, encode_images(model, processor, data["gallery"]["image"]))

    @property
    def reference_features(self) -> torch.Tensor:
        """CLIP's features of the reference images, shape `(num_queries, projection_dim)`."""
        return self.gallery[torch.tensor(self.data["queries"]["reference_id"])]

    def queries(self, model: M2CModel, processor: M2CProcessor) -> torch.Tensor:
        """Features of the composed queries, shape `(num_queries, projection_dim)`."""
        images = [self.data["gallery"][index]["image"] for index in self.data["queries"]["reference_id"]]
        return encode_queries(model, processor, images, self.data["queries"][:]["modification"])

    def texts(self, column: str, model: M2CModel, processor: M2CProcessor) -> torch.Tensor:
        """Plain text features of a column of the queries, shape `(num_queries, projection_dim)`."""
        return encode_texts(model, processor, self.data["queries"][:][column])

    def rank(self, queries: torch.Tensor, k: int) -> torch.Tensor:
        """The best `k` gallery positions for query features of shape `(num_queries, projection_dim)`."""
        return rank(self.benchmark, PROTOCOLS["scenes"], queries, self.gallery, k).gallery

    def score(self, queries: torch.Tensor, gallery: torch.Tensor | None = None) -> dict[str, float]:
        """[`METRICS`] in percent.

        Args:
            queries (`torch.Tensor` of shape `(num_queries, projection_dim)`).
            gallery (`torch.Tensor` of shape `(num_gallery, projection_dim)`): a fused one, which queries are multiplied with;
                by default that of CLIP, by cosine.
        """
        protocol, is_cosine = PROTOCOLS["scenes"], gallery is None
        ranked = rank(self.benchmark, protocol, queries, self.gallery if is_cosine else gallery, is_cosine=is_cosine)
        figures = measure(self.benchmark, protocol, ranked)
        return {name: round(figures[name], 2) for name in METRICS}
