"""Stored features are known by all that decides them, and by nothing else."""

import copy
import os
from types import SimpleNamespace

import pytest
import torch
from datasets import Dataset, Features, Image, Value

from m2c.training import TrainingConfig
from m2c.training.features.key import describe_features, digests_of, key_of
from m2c.training.features.shards import parts_of
from m2c.training.tasks.adapters import add_composing_adapter
from modeling_m2c import M2CModel

from .rows import PAIRS, ROWS, SHARDS, TEXTS, pair_samples, triplet_samples


def bump(model, name: str) -> None:
    with torch.no_grad():
        model.state_dict()[name].view(-1)[0] += 1


def edit(column: str, value):
    def change(world):
        world.rows = [{**row, column: value} if index == 9 else row for index, row in enumerate(world.rows)]

    return change


def other_tokenizer(world):
    world.processor.tokenizer.add_tokens(["polygon"])


def with_adapter(world):
    add_composing_adapter(world.model, TrainingConfig(stage=2))
    bump(world.model, "composing_encoder.layers.0.mlp.fc1.lora_A.default.weight")


# What is changed, and whether that decides features of stage 1 and of stage 2.
CHANGES = {
    "nothing": (lambda world: None, False, False),
    "vision tower": (lambda world: bump(world.model, "vision_model.embeddings.class_embedding"), True, True),
    "projection": (lambda world: bump(world.model, "visual_projection.weight"), True, True),
    "text tower": (lambda world: bump(world.model, "text_model.final_layer_norm.bias"), True, True),
    "text projection": (lambda world: bump(world.model, "text_projection.weight"), True, True),
    "precision of weights": (lambda world: world.model.bfloat16(), True, True),
    "mapper": (lambda world: bump(world.model, "token_mapper.fc2.bias"), False, True),
    "injection": (lambda world: bump(world.model, "semantic_injection.projection.weight"), False, True),
    "batch norm": (lambda world: bump(world.model, "semantic_injection.blocks.1.norm.running_mean"), False, True),
    "activation": (lambda world: setattr(world.model.config, "mapper_hidden_act", "gelu"), False, True),
    "adapter": (with_adapter, False, False),
    "attention kernel": (lambda world: world.model.set_attn_implementation("eager"), False, False),
    "patch grid": (lambda world: setattr(world.model.config, "injection_grid_size", 2), True, True),
    "precision": (lambda world: world.config.update(mixed_precision="bf16"), True, True),
    "batches": (lambda world: world.config.update(batch_size=3, num_workers=1, seed=5), False, False),
    "release": (lambda world: setattr(world.model.config.vision_config, "transformers_version", "9"), False, False),
    "preprocessing": (lambda world: setattr(world.processor.image_processor, "image_mean", [0.4, 0.5, 0.6]), True, True),
    "tokenizer": (other_tokenizer, True, True),
    "use of the tokenizer": (lambda world: world.processor.tokenizer("x", padding="max_length", max_length=9), False, False),
    "template": (lambda world: setattr(world.processor, "composing_template", "{text} *"), False, False),
    "seed of augmentation": (lambda world: world.augmentation.update(seed=1), True, False),
    "share of mirrored views": (lambda world: world.augmentation.update(flip=0.1), True, False),
    "image": (edit("image", {"bytes": b"another", "path": None}), True, True),
    "caption": (edit("caption", "a star"), True, True),
    "modification": (edit("modification", "is red"), False, False),
    "order of rows": (lambda world: world.rows.reverse(), True, True),
    "number of rows": (lambda world: world.rows.pop(), True, True),
}


def names_of(samples, model, mixed_precision: str = "no") -> tuple[str, ...]:
    """What tells stored features from others: of the folder, and of each shard."""
    digests = digests_of(samples.encoded_rows, parts_of(len(samples)))
    return key_of(describe_features(samples, model, mixed_precision)), *digests


def names_after(change, stage: int, model, processor) -> tuple[str, ...]:
    rows = [{**row, "modification": text} for row, text in zip(PAIRS.to_list(), TEXTS)]
    world = SimpleNamespace(model=model, processor=processor, rows=rows, augmentation={}, config={})
    change(world)
    features = Features({"image": Image(decode=False), "caption": Value("string"), "modification": Value("string")})
    rows = Dataset.from_list(world.rows, features=features)
    if stage == 1:
        samples = pair_samples(processor, rows.remove_columns("modification"), **world.augmentation)
    else:
        rows = rows.add_column("reference", rows["image"][:], feature=Image(decode=False))
        samples = triplet_samples(processor, rows.rename_columns({"image": "target", "caption": "reference_caption"}))
    config = TrainingConfig(stage=stage, **world.config)
    return names_of(samples, model, config.mixed_precision)


@pytest.mark.parametrize("stage", [1, 2])
def test_names_change_with_what_decides_a_feature_and_nothing_else(model, processor, stage):
    expected, found = names_after(CHANGES["nothing"][0], stage, model, processor), set()
    for name, (change, *decides) in CHANGES.items():
        names = names_after(change, stage, copy.deepcopy(model), copy.deepcopy(processor))
        assert (names != expected) == decides[stage - 1], name
        found.add(names)
    assert len(found) == 1 + sum(decides[stage - 1] for _, *decides in CHANGES.values()), "and every change makes another one"


def test_a_row_is_in_the_digest_of_its_own_shard(model, processor):
    _, *expected = names_of(pair_samples(processor), model)
    for index in range(ROWS):
        rows = [{**row, "caption": "a star"} if place == index else row for place, row in enumerate(PAIRS.to_list())]
        _, *digests = names_of(pair_samples(processor, Dataset.from_list(rows, features=PAIRS.features)), model)
        assert [number for number in range(SHARDS) if digests[number] != expected[number]] == [index // 4]


def test_a_mapper_alone_shares_the_features_of_stage_1(make_config, processor):
    found = set()
    for layers in ([], [1], [0, 2]):
        torch.manual_seed(0)
        model = M2CModel(make_config(injection_layers=layers))
        found.add(names_after(lambda world: None, 1, model, processor))
    assert len(found) == 1


def test_files_of_images_are_known_by_path_size_and_time(model, processor, tmp_path):
    paths = [tmp_path / f"{index}.png" for index in range(3)]
    for index, path in enumerate(paths):
        path.write_bytes(PAIRS[index]["image"]["bytes"])

    def names() -> tuple[str, ...]:
        rows = Dataset.from_dict({"image": [str(path) for path in paths], "caption": ["", "x", "y"]})
        return names_of(pair_samples(processor, rows), model)

    found = [names()]
    assert names() == found[0]
    os.utime(paths[1], ns=(0, 0))
    found.append(names())
    paths[1].write_bytes(paths[1].read_bytes() + b" ")
    os.utime(paths[1], ns=(0, 0))
    found.append(names())
    paths[1] = paths[1].rename(tmp_path / "renamed.png")
    found.append(names())
    paths[1].unlink()
    found.append(names())
    assert len(set(found)) == 5 and len({folder for folder, *_ in found}) == 1


def test_no_caption_is_an_empty_one(model, processor):
    first, second = (Dataset.from_dict({"image": PAIRS["image"][:2], "caption": [text, "x"]}) for text in ("", None))
    assert len({names_of(pair_samples(processor, rows), model) for rows in (first, second)}) == 1
