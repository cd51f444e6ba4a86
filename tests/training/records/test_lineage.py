"""What stage 2 says of stage 1."""

import json

import pytest
from huggingface_hub.errors import HTTPError

from m2c.checkpoints import save_retriever
from m2c.training import TrainingConfig, train
from m2c.training.records.lineage import record_of


@pytest.fixture
def folder(model, processor, tmp_path):
    save_retriever(model, processor, tmp_path / "stage1")
    return tmp_path / "stage1"


def test_the_record_is_that_of_training_or_of_a_conversion(folder):
    assert record_of(str(folder)) is None
    (folder / "conversion.json").write_text('{"method": "pic2word"}')
    assert record_of(str(folder)) == {"method": "pic2word"}
    (folder / "training.json").write_text('{"config": {"stage": 1}, "started_from": null}')
    assert record_of(str(folder)) == {"config": {"stage": 1}, "started_from": None}


@pytest.mark.parametrize("content", ["{", "[]", "\udcff"])
def test_a_damaged_record_is_none(folder, content):
    (folder / "training.json").write_bytes(content.encode("utf-8", "surrogateescape"))
    assert record_of(str(folder)) is None


def test_a_plain_clip_has_none(clip_path):
    (clip_path / "training.json").write_text('{"steps": 3}')
    assert record_of(str(clip_path)) is None and record_of("scenes") is None


def test_a_repository_of_the_hub_is_asked(folder, monkeypatch):
    (folder / "training.json").write_text('{"config": {}}')
    asked = []

    def download(name, file):
        asked.append(file)
        if file == "training.json":
            raise FileNotFoundError(file)
        return str(folder / "training.json")

    monkeypatch.setattr("m2c.training.records.lineage.is_m2c", lambda name: True)
    monkeypatch.setattr("m2c.training.records.lineage.hf_hub_download", download)
    assert record_of("you/stage1") == {"config": {}} and asked == ["training.json", "conversion.json"]


@pytest.mark.parametrize("broken", ["is_m2c", "hf_hub_download"])
def test_a_connection_that_is_lost_in_the_middle_is_no_end_of_a_run(monkeypatch, broken):
    """The error of the HTTP library is no OSError."""

    def lose(*_):
        raise HTTPError("Server disconnected without sending a response.")

    monkeypatch.setattr("m2c.training.records.lineage.is_m2c", lambda name: True)
    monkeypatch.setattr(f"m2c.training.records.lineage.{broken}", lose)
    assert not issubclass(HTTPError, OSError) and record_of("you/stage1") is None


def test_stage_2_carries_the_record_of_stage_1(tmp_path):
    """To the card, wherever the folder of stage 1 has gone."""
    small = {"max_samples": 8, "max_steps": 1, "batch_size": 4, "cache_dir": str(tmp_path / "cache")}
    train(TrainingConfig(output_dir=str(tmp_path / "stage1"), **small))
    first = json.loads((tmp_path / "stage1" / "training.json").read_text())
    assert first["started_from"] is None and first["config"]["model"] == "scenes"
    train(TrainingConfig(stage=2, model=str(tmp_path / "stage1"), output_dir=str(tmp_path / "stage2"), **small))
    assert json.loads((tmp_path / "stage2" / "training.json").read_text())["started_from"] == first
