"""The card of a converted checkpoint: whose weights they are, and where they come from."""

import json
from pathlib import Path

from huggingface_hub import ModelCard, ModelCardData

from .model_card import TEMPLATES, USAGE, is_on_hub


METHODS = {
    "m2c": ("M2C", "2504.17990"),
    "pic2word": ("Pic2Word", "2302.03084"),
    "searle": ("SEARLE", "2303.15247"),
    "lincir": ("LinCIR", "2312.01998"),
}


def write_converted_card(directory: str | Path) -> Path:
    """Writes `README.md` into a folder that [`m2c.conversion.convert`] wrote, and returns its path."""
    directory = Path(directory)
    record = json.loads((directory / "conversion.json").read_text(encoding="utf-8"))
    config = json.loads((directory / "config.json").read_text(encoding="utf-8"))
    method, paper = METHODS[record["method"]]
    carries_clip = record["method"] in ("m2c", "pic2word")
    data = ModelCardData(
        library_name="transformers",
        tags=["composed-image-retrieval", "zero-shot", "clip", "m2c"],
        base_model=record["clip"] if not carries_clip and is_on_hub(record["clip"]) else None,
    )
    card = ModelCard.from_template(
        data,
        str(TEMPLATES / "converted_card.md"),
        record=record,
        config=config,
        method=method,
        paper=paper,
        clip="in the same file" if carries_clip else record["clip"],
        has_processor=(directory / "processor_config.json").exists(),
        usage=USAGE,
    )
    path = directory / "README.md"
    card.save(path)
    return path
