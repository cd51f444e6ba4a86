"""The pipeline `"composed-image-retrieval"`: pictures found by a reference picture and words."""

from collections.abc import Iterable

import torch
from torch.nn.functional import normalize
from transformers import Pipeline


class ComposedImageRetrievalPipeline(Pipeline):
    """Searches a gallery with a reference image and a modification text.

    ```python
    retriever = pipeline("composed-image-retrieval", model=repository, trust_remote_code=True)
    gallery = retriever.encode_gallery(pictures)
    retriever({"image": reference, "text": "is red and has long sleeves"}, gallery=gallery, top_k=5)
    ```
    """

    _load_processor = True
    _load_tokenizer = False
    _load_image_processor = False
    _load_feature_extractor = False

    def __call__(self, inputs, gallery, top_k: int = 10, **kwargs) -> list[dict] | Iterable[list[dict]]:
        """
        Args:
            inputs (`dict`, `list[dict]`, or a generator or `torch.utils.data.Dataset` of them):
                Queries: `image`, anything Pillow opens, a path or a URL, and `text`, the modification text.
            gallery (`torch.Tensor` of shape `(num_gallery, projection_dim)`, or a list of pictures):
                What to search: features from `encode_gallery`, or pictures, which are encoded anew at every call.
            top_k (`int`): how many answers to give.
            kwargs: `batch_size` and `num_workers` of every pipeline.

        Returns:
            For each query a list of answers, best first: `index` in the gallery, and `score`, a cosine. Of a generator or
            data set these come one by one, as it is read.

        Raises:
            ValueError: if a query lacks its image or its text, or the gallery is empty.
        """
        features = gallery if isinstance(gallery, torch.Tensor) else self.encode_gallery(gallery)
        if len(features) == 0:
            raise ValueError("the gallery is empty")
        return super().__call__(inputs, gallery=features, top_k=top_k, **kwargs)

    @torch.no_grad()
    def encode_gallery(self, pictures, batch_size: int = 32) -> torch.Tensor:
        """Unit features of pictures, shape `(num_gallery, projection_dim)`, float32, on the CPU."""
        parts = [torch.zeros(0, self.model.config.projection_dim)]
        for start in range(0, len(pictures), batch_size):
            pixels = self.processor(images=list(pictures[start : start + batch_size]), return_tensors="pt").pixel_values
            features = self.model.get_image_features(pixels.to(self.device, self.model.dtype)).pooler_output
            parts.append(normalize(features.float(), dim=-1).cpu())
        return torch.cat(parts)

    def _sanitize_parameters(self, gallery=None, top_k=10):
        return {}, {}, {"gallery": gallery, "top_k": top_k}

    def preprocess(self, query: dict) -> dict:
        if not isinstance(query, dict) or not {"image", "text"} <= query.keys():
            raise ValueError(f"a query is a dict with 'image' and 'text', not {query!r}")
        return dict(self.processor(images=query["image"], text=query["text"], return_tensors="pt"))

    def _forward(self, inputs: dict) -> dict:
        pixels = inputs.pop("pixel_values").to(self.model.dtype)
        return {"features": self.model.get_composed_features(pixel_values=pixels, **inputs).pooler_output}

    def postprocess(self, outputs: dict, gallery: torch.Tensor, top_k: int) -> list[dict]:
        scores = gallery.float().cpu() @ normalize(outputs["features"].float(), dim=-1)[0]
        best = scores.topk(min(top_k, len(scores)))
        return [{"index": index, "score": score} for index, score in zip(best.indices.tolist(), best.values.tolist())]


__all__ = ["ComposedImageRetrievalPipeline"]
