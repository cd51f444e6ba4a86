import json
from dataclasses import asdict

import pytest
from huggingface_hub import ModelCard

from hub_cards import write_model_card
from m2c.training import TrainingConfig


def write_record(path, **config) -> None:
    record = {"config": asdict(TrainingConfig(**config)), "processes": 2, "training_rows": 300, "trained_parameters": 1234567}
    (path / "training.json").write_text(json.dumps(record))


def test_card_of_a_model_from_the_hub(tmp_path):
    write_record(tmp_path, model="openai/clip-vit-base-patch32", dataset="someone/pairs", learning_rate=2e-4)
    card = ModelCard.load(write_model_card(tmp_path, results={"R@1": 47.8, "R@5": 80.0}))
    assert card.data.base_model == "openai/clip-vit-base-patch32" and card.data.datasets == ["someone/pairs"]
    assert card.data.library_name == "transformers" and "composed-image-retrieval" in card.data.tags
    for fact in ("0.0002", "1,234,567", "| R@1 | R@5 |", "| 47.8 | 80.0 |", "1024 x 2"):
        assert fact in card.text, fact
    assert "peft" not in card.text


@pytest.mark.parametrize("stage", [1, 2])
def test_card_of_a_model_from_a_folder(tmp_path, stage):
    write_record(tmp_path, stage=stage, model="stage1", dataset="mine")
    card = ModelCard.load(write_model_card(tmp_path))
    assert "| started from | stage1 |" in card.text and card.data.base_model is None and card.data.datasets is None
    assert ("pip install peft" in card.text) == (stage == 2) and "## Results" not in card.text
