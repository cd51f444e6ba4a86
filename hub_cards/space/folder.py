"""Writes the folder of a Space: the page, the gallery with its features, and the card."""

import json
import os
import shutil
import sys
from importlib.metadata import version
from pathlib import Path

import torch
from huggingface_hub import SpaceCard, SpaceCardData, snapshot_download
from safetensors.torch import save_file
from tqdm.auto import tqdm

from hub_cards.licences import SHIPPED, is_on_hub
from hub_cards.publishing.failures import failing_as
from hub_cards.rendering import render
from hub_cards.signature import sign
from m2c.checkpoints import is_m2c, load_model, load_processor, public_name
from modeling_m2c.pipeline_m2c import ComposedImageRetrievalPipeline

from .gallery import Gallery, store


TEMPLATE = Path(__file__).with_name("template")
PAGE = ("app.py", "search.py")
# Gradio comes with the Space, in the version that its card names.
REQUIREMENTS = ("torch", "transformers", "peft", "safetensors", "pillow")
BATCH_SIZE = 32


def write_space(model: str, gallery: Gallery, folder: Path) -> None:
    """Fills an empty folder with what a Space consists of.

    Args:
        model: a retriever: a repository of the Hub, of which the Space keeps to today's commit; or a folder, and then the Space
            runs on this machine only.
        gallery: what is searched.
        folder: where to.

    Raises:
        ValueError: if the model cannot be loaded or is no retriever, or a picture cannot be read.
        OSError: if the Hub does not give the model.
        ModuleNotFoundError: if gradio is not installed.
    """
    gradio = version("gradio")
    here, revision = _download(model)
    if not is_m2c(here):
        raise ValueError(f"{model!r} is a plain CLIP, which composes nothing; name what m2c train or m2c convert made of it")
    (folder / "gallery").mkdir()
    files = store(gallery, folder / "gallery")
    features = _encode(here, [folder / "gallery" / name for name in sorted(set(files.values()))])
    save_file(features, folder / "gallery.safetensors")
    for name in PAGE:
        shutil.copyfile(TEMPLATE / name, folder / name)
    examples = [{"reference": files[name], "modification": text} for name, text in gallery.examples]
    settings = {"model": _place(model), "revision": revision, "examples": examples}
    _write(folder / "settings.json", json.dumps(settings, indent=2, ensure_ascii=False) + "\n")
    # Of a build for one kind of machine the version has an end, as in 2.13.0+cpu.
    _write(folder / "requirements.txt", "".join(f"{name}=={version(name).partition('+')[0]}\n" for name in REQUIREMENTS))
    _card(public_name(model), len(features), gallery.licence, gradio).save(folder / "README.md")


def _encode(model: str, pictures: list[Path]) -> dict[str, torch.Tensor]:
    """Unit features, each of shape `(projection_dim,)`, by file name."""
    encoder = ComposedImageRetrievalPipeline(model=load_model(model).eval(), processor=load_processor(model))
    features = {}
    for start in tqdm(range(0, len(pictures), BATCH_SIZE), desc="encoding the gallery"):
        part = pictures[start : start + BATCH_SIZE]
        # Rows of one tensor share their memory, which safetensors refuses.
        features |= {path.name: row.clone() for path, row in zip(part, encoder.encode_gallery(part))}
    return features


def _place(model: str) -> str:
    return str(Path(model).resolve()) if os.path.isdir(model) else model


def _download(model: str) -> tuple[str, str | None]:
    """Where the model lies on this machine, and at which commit: `None` of a folder. Whatever is published meanwhile, this
    commit is what encodes the gallery and what the Space loads."""
    if model in SHIPPED or os.path.isdir(model):
        return model, None
    with failing_as(f"{model} could not be fetched", model, "Run the same command again"):
        place = Path(snapshot_download(model))
    if not (place / "config.json").is_file():
        # Its base has commits of its own, with which the Space would change.
        raise ValueError(f"{model!r} is an adapter alone; name a repository that holds its base too")
    return str(place), place.name


def _card(model: str, pictures: int, licence: str, gradio: str) -> SpaceCard:
    data = SpaceCardData(
        title="Search with a picture and words",
        emoji="🔎",
        colorFrom="indigo",
        colorTo="pink",
        sdk="gradio",
        sdk_version=gradio,
        python_version=f"{sys.version_info.major}.{sys.version_info.minor}",
        app_file="app.py",
        license=licence,
        models=[model] if is_on_hub(model) else None,
        tags=["composed-image-retrieval", "m2c"],
    )
    text = render("space_card.md", model=model, pictures=pictures, licence=licence, gradio=gradio)
    return SpaceCard(sign(f"---\n{data.to_yaml()}\n---\n\n{text}"))


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
