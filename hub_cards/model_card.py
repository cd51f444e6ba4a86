"""The model card: what the model is, how to use it, what it was trained on."""

import json
from pathlib import Path

from huggingface_hub import ModelCard, ModelCardData


TEMPLATES = Path(__file__).parent / "templates"
USAGE = (TEMPLATES / "usage.md").read_text(encoding="utf-8").strip()


def write_model_card(directory: str | Path, results: dict[str, float] | None = None) -> Path:
    """Writes `README.md` into a folder that [`m2c.training.train`] wrote.

    Args:
        directory: the folder; its `training.json` says what was run.
        results: figures on the scenes test set in percent, if they were measured.

    Returns:
        The path of the card.
    """
    directory = Path(directory)
    record = json.loads((directory / "training.json").read_text(encoding="utf-8"))
    config = record["config"]
    data = ModelCardData(
        library_name="transformers",
        tags=["composed-image-retrieval", "zero-shot", "clip", "m2c"],
        base_model=config["model"] if is_on_hub(config["model"]) else None,
        datasets=[config["dataset"]] if is_on_hub(config["dataset"]) else None,
    )
    card = ModelCard.from_template(
        data, str(TEMPLATES / "model_card.md"), config=config, record=record, results=results, usage=USAGE
    )
    path = directory / "README.md"
    card.save(path)
    return path


def is_on_hub(name: str) -> bool:
    """Whether a name in a record is a repository's: of local folders the record keeps the last part only."""
    return "/" in name
