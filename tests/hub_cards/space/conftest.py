"""A Space of the drawn gallery, with a model of every part, and what that model answers when it is asked directly."""

from collections.abc import Callable
from pathlib import Path

import pytest
from torch.nn.functional import normalize

from hub_cards.space.folder import write_space
from hub_cards.space.gallery import read_gallery
from m2c.checkpoints import load_model, load_processor

from ...hub.conftest import client, hub, stranger, token


__all__ = ["client", "hub", "stranger", "token"]


@pytest.fixture(scope="session")
def space(folders, tmp_path_factory) -> Path:
    pytest.importorskip("gradio")
    folder = tmp_path_factory.mktemp("space")
    write_space(str(folders["full"]), read_gallery("scenes", None), folder)
    return folder


@pytest.fixture(scope="session")
def parts(folders) -> tuple:
    """The model of `space`, and its processor."""
    model = load_model(str(folders["full"])).eval().requires_grad_(False)
    return model, load_processor(str(folders["full"]))


@pytest.fixture(scope="session")
def ranking_in(parts) -> Callable:
    """What the model of `space` answers about a folder of pictures, asked directly: for a reference picture and a text all of
    them, best first, as pairs of file name and cosine."""
    model, processor = parts

    def gallery(folder: Path) -> Callable:
        pictures = sorted(folder.iterdir())
        images = model.get_image_features(**processor(images=pictures, return_tensors="pt")).pooler_output

        def rank(reference: Path, text: str) -> list[tuple[str, float]]:
            inputs = processor(images=[reference], text=[text], return_tensors="pt")
            query = model.get_composed_features(**inputs).pooler_output
            scores = (normalize(images, dim=-1) @ normalize(query, dim=-1)[0]).tolist()
            return sorted(zip([picture.name for picture in pictures], scores), key=lambda answer: -answer[1])

        return rank

    return gallery


@pytest.fixture(scope="session")
def ranking(ranking_in, space) -> Callable:
    return ranking_in(space / "gallery")
