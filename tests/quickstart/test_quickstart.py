"""The quickstart at toy size: everything that it writes, twice the same."""

import json

import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from m2c.cli import app
from m2c.quickstart.complementary import parts
from m2c.quickstart.experiment import QUICK, Settings, quickstart
from m2c.retrieval.complementary import Fusion
from m2c.training.features.shards import FeatureShards


TOY = Settings(pairs=64, stage1_steps=3, triplets=32, stage2_steps=3, queries=12)


@pytest.fixture(autouse=True)
def toy_batches(monkeypatch):
    """The batches of the real quickstart are larger than toy data."""
    from m2c.training.presets import PRESETS

    monkeypatch.setitem(PRESETS["scenes", 1], "batch_size", 32)
    monkeypatch.setitem(PRESETS["scenes", 2], "batch_size", 16)


def test_quickstart(tmp_path, monkeypatch):
    said, stored, write = [], [], FeatureShards.write
    monkeypatch.setattr(FeatureShards, "write", lambda shards, *shard: (stored.append(shards.folder), write(shards, *shard)))
    report = quickstart(tmp_path / "out", TOY, say=said.append)
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"model", "report.json", "report.md", "retrieval.png"}
    assert list(report["rows"]) == [
        "image only",
        "text only",
        "image + text",
        "slerp 0.35",
        "mapper only (Pic2Word)",
        "M2C stage 1",
        "M2C stage 2",
        "ceiling: caption of the target",
    ]
    for figures in report["rows"].values():
        assert list(figures) == ["R@1", "R@5", "R@10", "subset R@1", "mAP@10"]
        assert 0 <= figures["R@1"] <= figures["R@5"] <= figures["R@10"] <= 100
    assert report["rows"]["ceiling: caption of the target"]["R@10"] > 90, "the shipped CLIP knows this world"
    assert len(said) == 5
    assert len(stored) == 2, "features of stage 1, which the mapper alone shares, and of stage 2"
    assert all(tmp_path / "out" in folder.parents for folder in stored), "in no cache that another run would find"
    assert json.loads((tmp_path / "out" / "report.json").read_text()) == report
    text = (tmp_path / "out" / "report.md").read_text()
    assert "| M2C stage 2 |" in text and "12 queries and a gallery of 72 images" in text
    with Image.open(tmp_path / "out" / "retrieval.png") as picture:
        assert picture.width > 1000
    assert (tmp_path / "out" / "model" / "adapter_model.safetensors").exists()
    card = (tmp_path / "out" / "model" / "README.md").read_text()
    assert str(tmp_path) not in card and "| R@1 |" in card

    again = quickstart(tmp_path / "again", TOY, say=said.append)
    assert again["rows"] == report["rows"], "the same seed gives the same figures"


@pytest.mark.parametrize(
    "make", [lambda path: path.write_text("x"), lambda path: (path.mkdir(), (path / "mine").write_text("x"))]
)
def test_what_exists_is_left_alone(tmp_path, make):
    make(tmp_path / "out")

    def content() -> dict:
        return {path: path.read_text() for path in tmp_path.rglob("*") if path.is_file()}

    before = content()
    result = CliRunner().invoke(app, ["quickstart", "--output", str(tmp_path / "out")])
    assert result.exit_code == 1 and "exists already; choose another folder, or remove it" in result.output
    assert content() == before


def test_interruption_has_a_message(tmp_path, monkeypatch):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("m2c.quickstart.experiment._experiment", interrupt)
    result = CliRunner().invoke(app, ["quickstart", "--output", str(tmp_path / "out")])
    assert result.exit_code == 130 and "interrupted; nothing was written" in result.output
    assert list(tmp_path.iterdir()) == []


def test_help_is_quick_and_teaches():
    result = CliRunner().invoke(app, ["quickstart", "--help"])
    assert result.exit_code == 0 and "--quick" in result.output
    result = CliRunner().invoke(app, ["train", "--stage", "7"])
    assert result.exit_code == 1


def test_picture_of_few_queries(tmp_path):
    from m2c.data import scenes
    from m2c.evaluation.scenes_benchmark import ScenesBenchmark
    from m2c.quickstart.picture import draw_retrieval

    data = scenes.composed_retrieval(3)
    benchmark = ScenesBenchmark(data, torch.randn(18, 8))
    draw_retrieval(tmp_path / "picture.png", benchmark, torch.randn(3, 8))
    assert (tmp_path / "picture.png").stat().st_size > 10_000


def test_with_a_captioner_and_a_language_model(tmp_path):
    report = quickstart(tmp_path / "out", TOY, method="cvsi", say=lambda _: None)
    assert report["command"].endswith("--method cvsi --seed 0")
    assert list(report["complementary"]) == ["mapper only", "M2C stage 2"]
    for rows in report["complementary"].values():
        selections = ["f1", "f2", "f3", "f1 + f2", "f1 + f3", "f2 + f3", "f1 + f2 + f3"]
        assert list(rows) == selections + [f"{selection}, captioned gallery" for selection in selections]
        assert rows["f3"] == report["rows"]["image only"]
        assert rows["f1"]["R@10"] > 60, "captioner and language model of scenes know this world"
    first, second = report["complementary"].values()
    assert first["f1"] == second["f1"], "what does not depend on the model"
    assert "| f1 + f2 + f3, captioned gallery |" in (tmp_path / "out" / "report.md").read_text()


@pytest.mark.slow
def test_what_is_written_helps_a_mapper_and_stage_2(tmp_path):
    report = quickstart(tmp_path / "out", QUICK, method="cvsi", say=lambda _: None)
    alone, written = report["rows"], report["complementary"]
    everything = "f1 + f2 + f3, captioned gallery"
    assert written["M2C stage 2"][everything]["R@1"] >= alone["M2C stage 2"]["R@1"] + 5
    assert written["mapper only"][everything]["R@1"] >= alone["mapper only (Pic2Word)"]["R@1"] + 10


@pytest.mark.parametrize("weights", [(0.6, 0.4), (0.2, 0.5), (0.0, 1.0)])
def test_parts_keep_their_weights_among_each_other(weights):
    alpha, beta = weights
    found = parts(Fusion(alpha, beta, 0.2, "unit"), gamma=0.1)
    assert (found["f1"].alpha, found["f2"].beta, found["f3"].alpha + found["f3"].beta) == (1, 1, 0)
    both = found["f1 + f2"]
    assert both.alpha + both.beta == pytest.approx(1) and both.alpha * beta == pytest.approx(both.beta * alpha, abs=1e-6)
    whole = found["f1 + f2 + f3"]
    assert (whole.alpha, whole.beta) == (pytest.approx(alpha, abs=1e-6), pytest.approx(beta, abs=1e-6))
    assert all(0 < one.alpha + one.beta < 1 for one in (found["f1 + f3"], found["f2 + f3"]))
    assert {(one.gamma, one.caption_feature) for one in found.values()} == {(0.1, "unit")}
