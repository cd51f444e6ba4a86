"""Composed search in the gallery of this Space: a picture and words find pictures."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch.nn.functional import normalize
from transformers import AutoModel, AutoProcessor


@dataclass(frozen=True)
class Answer:
    """Args:
    picture: a file of the gallery.
    score: cosine of its feature and the query's.
    """

    picture: Path
    score: float


class Searcher:
    """A composed image retriever and the pictures that it searches.

    Args:
        model: has `get_composed_features`; in eval mode, on its device.
        processor: that of the model.
        features: of the pictures by their file names, each of shape `(projection_dim,)` and unit length.
        folder: where the pictures are; those that are no longer there are left out. Each is named after its content (see
            [`name_of`]).
    """

    def __init__(self, model, processor, features: dict[str, torch.Tensor], folder: Path):
        self.model, self.processor = model, processor
        self.pictures = [folder / name for name in sorted(features) if (folder / name).is_file()]
        self.features = torch.stack([features[picture.name] for picture in self.pictures]) if self.pictures else None

    @torch.no_grad()
    def __call__(self, reference: str | Path | None, words: str, count: int = 12) -> list[Answer]:
        """The pictures that look like the reference after the words were applied, best first, without the reference itself.

        Args:
            reference: file of a picture, of the gallery or any other.
            words: the modification text; empty to search for more like the reference.
            count: how many answers to give.

        Raises:
            ValueError: if there is no reference, it is no picture, or the gallery is empty.
        """
        if self.features is None:
            raise ValueError("The gallery is empty: there is nothing to search.")
        if reference is None:
            raise ValueError("Choose a reference picture first: upload one, or click one below.")
        try:
            inputs = self.processor(images=[reference], text=[words], return_tensors="pt")
        except ValueError as error:
            raise ValueError("This file cannot be read as a picture. Try another one, such as a JPEG or PNG.") from error
        query = self.model.get_composed_features(**inputs.to(self.model.device)).pooler_output
        scores = self.features @ normalize(query.float(), dim=-1)[0].cpu()
        own = name_of(Path(reference).read_bytes())
        others = [index for index in scores.argsort(descending=True).tolist() if self.pictures[index].stem != own]
        return [Answer(self.pictures[index], scores[index].item()) for index in others[:count]]


def name_of(content: bytes) -> str:
    """By which a picture of the gallery is recognised when it comes back as the reference."""
    return hashlib.sha256(content).hexdigest()[:16]


def load_searcher(folder: Path, model: str, revision: str | None) -> Searcher:
    """The retriever of a repository of the Hub, at a commit, and the gallery in `folder`."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    source = {"revision": revision, "trust_remote_code": True}
    retriever = AutoModel.from_pretrained(model, dtype=torch.float32, **source).eval().to(device)
    processor = AutoProcessor.from_pretrained(model, **source)
    return Searcher(retriever, processor, load_file(folder / "gallery.safetensors"), folder / "gallery")


def read_settings(folder: Path) -> dict:
    """`model` and its `revision`, and `examples`, each with a `reference`, a file name in the gallery, and a `modification`."""
    return json.loads((folder / "settings.json").read_text(encoding="utf-8"))
