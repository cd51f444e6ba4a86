"""Composed retrieval on scenes: the protocol of the quickstart's table."""

from dataclasses import dataclass

import torch
from datasets import DatasetDict

from modeling_m2c import M2CModel
from processing_m2c import M2CProcessor

from .encoding import encode_images, encode_queries, encode_texts
from .metrics import mean_average_precision_at_k, rank_gallery, recall_at_k, subset_recall_at_k


METRICS = ("R@1", "R@5", "R@10", "subset R@1", "mAP@10")


@dataclass
class ScenesBenchmark:
    """Queries and the encoded gallery of [`m2c.data.scenes.composed_retrieval`].

    The whole gallery is ranked by cosine, without the query's own reference. Recall looks for the target; subset recall for the
    target among it and the four other edits of its reference; mAP for every gallery image that shows the edited scene.
    """

    data: DatasetDict
    gallery: torch.Tensor

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
        return rank_gallery(queries, self.gallery, k, excluded=self.data["queries"]["reference_id"])

    def score(self, queries: torch.Tensor) -> dict[str, float]:
        """[`METRICS`] in percent for query features of shape `(num_queries, projection_dim)`."""
        columns = self.data["queries"][:]
        rankings, targets = self.rank(queries, k=10), columns["target_id"]
        figures = {f"R@{k}": recall_at_k(rankings, targets, k) for k in (1, 5, 10)}
        figures["subset R@1"] = subset_recall_at_k(queries, self.gallery, columns["subset_ids"], targets, 1)
        figures["mAP@10"] = mean_average_precision_at_k(rankings, columns["answer_ids"], 10)
        return {name: round(100 * figures[name], 2) for name in METRICS}
