"""What a run is made of is known by its content, wherever it lies."""

import copy

import pytest
import torch
from datasets import Dataset, Features, Image, Value

from m2c.training import TrainingConfig
from m2c.training.records.identity import identity_of


FEATURES = Features({"image": Image(decode=False), "caption": Value("string")})
ROWS = [{"image": {"bytes": None, "path": f"/disk/{name}.png"}, "caption": text} for name, text in zip("abc", ["x", None, "z"])]


@pytest.fixture
def key_of_rows(model, processor):
    def key(rows: list[dict]) -> str:
        return identity_of(TrainingConfig(), model, processor, Dataset.from_list(rows, FEATURES))["dataset"]

    return key


def edited(index: int, **values) -> list[dict]:
    return [{**row, **values} if number == index else row for number, row in enumerate(ROWS)]


def test_rows_are_known_by_texts_and_names_of_files_in_their_order(key_of_rows):
    key = key_of_rows(ROWS)
    moved = [{**row, "image": {"bytes": None, "path": row["image"]["path"].replace("/disk", "/other/place")}} for row in ROWS]
    assert key_of_rows(moved) == key
    mended = edited(1, image={"bytes": b"now it is whole", "path": "b.png"})
    assert key_of_rows(mended) == key
    others = [
        edited(0, caption="y"),
        edited(2, image={"bytes": None, "path": "/disk/d.png"}),
        edited(2, image=None),
        ROWS[::-1],
        ROWS[:2],
    ]
    assert len({key, *map(key_of_rows, others)}) == 1 + len(others)


def test_rows_of_a_part_of_a_data_set_and_of_a_stream(model, processor):
    rows = Dataset.from_list(ROWS, FEATURES)
    config = TrainingConfig()
    assert identity_of(config, model, processor, rows.select([0, 1])) == identity_of(
        config, model, processor, Dataset.from_list(ROWS[:2], FEATURES)
    )
    assert identity_of(config, model, processor, None)["dataset"] is None


def bump(name: str):
    def change(model, processor):
        with torch.no_grad():
            model.state_dict()[name].view(-1)[0] += 1

    return change


@pytest.mark.parametrize(
    ("change", "matters_in"),
    [
        (lambda model, processor: None, ()),
        (bump("vision_model.embeddings.class_embedding"), (1, 2)),
        (bump("text_projection.weight"), (1, 2)),
        (bump("token_mapper.fc2.bias"), (2,)),
        (bump("semantic_injection.projection.weight"), (2,)),
        (lambda model, processor: setattr(processor, "composing_template", "{text} *"), (1, 2)),
        (lambda model, processor: setattr(processor.image_processor, "image_mean", [0.1, 0.2, 0.3]), (1, 2)),
    ],
)
def test_the_model_is_known_by_what_is_frozen(model, processor, change, matters_in):
    """What is trained comes from the checkpoint: mapper and injection in stage 1."""
    changed, other_processor = copy.deepcopy(model), copy.deepcopy(processor)
    change(changed, other_processor)
    for stage in (1, 2):
        config = TrainingConfig(stage=stage)
        before = identity_of(config, model, processor, None)["model"]
        after = identity_of(config, changed, other_processor, None)["model"]
        assert (before != after) == (stage in matters_in)
