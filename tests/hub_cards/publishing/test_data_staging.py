"""What is sent of a data set: all of it, in a form that the Hub takes and `load_dataset` reads."""

from pathlib import Path

import pytest
from datasets import DatasetDict, load_dataset

from hub_cards.publishing import data_staging
from hub_cards.publishing.data_staging import stage_dataset
from hub_cards.publishing.staging import is_model
from m2c.data import scenes
from m2c.data.image_folder import write_image_folder

from .test_staging import contents, staged


__all__ = ["staged"]


@pytest.fixture
def triplets(tmp_path) -> Path:
    return write_image_folder(scenes.triplets(4), tmp_path / "triplets")


def rows_of(dataset) -> list[dict]:
    """With all pixels."""
    pictures = ("reference", "target")
    return [{**row, **{name: row[name].convert("RGB").tobytes() for name in pictures}} for row in dataset]


def test_a_data_set(triplets, staged):
    before = contents(triplets)
    stage_dataset(triplets, staged, "you/triplets", "mit", "Drawn by a script.")
    sent = contents(staged)
    assert not is_model(triplets) and sent.keys() == before.keys() | {"README.md"} and len(sent) == 10
    assert all(sent[name] == before[name] for name in before)
    assert b"Drawn by a script." in sent["README.md"] and b"license: mit" in sent["README.md"]


def test_names_that_are_private_in_a_run_are_not_in_a_data_set(tmp_path, staged):
    parts = {"checkpoints": scenes.triplets(1, seed=1), "trackers": scenes.triplets(2, seed=2)}
    folder = write_image_folder(DatasetDict(parts), tmp_path / "splits")
    (folder / ".cache").mkdir()
    (folder / ".cache" / "mine").touch()
    stage_dataset(folder, staged, "you/triplets", "mit", None)
    found = load_dataset(str(staged), cache_dir=tmp_path / "cache")
    assert {name: len(rows) for name, rows in found.items()} == {"checkpoints": 1, "trackers": 2}
    assert not (staged / ".cache").exists()


def test_pictures_that_are_missing_are_counted(triplets, staged):
    """Whatever letters stand in the texts; some end a line elsewhere."""
    for path in sorted(triplets.glob("target/*"))[:3]:
        path.unlink()
    metadata = (triplets / "metadata.jsonl").read_text().replace("the", "the\u2028")
    (triplets / "metadata.jsonl").write_text(metadata)
    with pytest.raises(ValueError, match=r"triplets lacks 3 of its pictures, such as target/000000"):
        stage_dataset(triplets, staged, "you/triplets", "mit", None)


def test_links_are_refused(triplets, staged):
    picture = min(triplets.glob("target/*"))
    picture.rename(triplets.parent / "elsewhere.png")
    picture.symlink_to(triplets.parent / "elsewhere.png")
    with pytest.raises(ValueError, match=r"target/000000.png in .*triplets is a link"):
        stage_dataset(triplets, staged, "you/triplets", "mit", None)


def test_files_are_copied_where_links_cannot_be(triplets, staged, monkeypatch):
    def link(*_):
        raise OSError("another file system")

    monkeypatch.setattr("os.link", link)
    stage_dataset(triplets, staged, "you/triplets", "mit", None)
    assert contents(triplets).items() <= contents(staged).items()


@pytest.mark.parametrize("form", ["saved to disk", "saved as splits", "more files than the Hub takes"])
def test_what_the_hub_does_not_take_as_it_is_becomes_parquet(tmp_path, staged, monkeypatch, form):
    """In several parts, each with its pictures, and every row in its place."""
    rows, folder = scenes.triplets(7), tmp_path / "data set"
    if form == "saved to disk":
        rows.save_to_disk(folder)
    elif form == "saved as splits":
        DatasetDict({"train": rows}).save_to_disk(folder)
    else:
        write_image_folder(DatasetDict({"train": rows}), folder)
        monkeypatch.setattr(data_staging, "MOST_FILES", 15)
    monkeypatch.setattr(data_staging, "PART", sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) // 2)
    stage_dataset(folder, staged, "you/triplets", "mit", None)
    parts = [f"data/train-0000{part}-of-00003.parquet" for part in range(3)]
    assert sorted(contents(staged)) == ["README.md", *parts]
    assert rows_of(load_dataset(str(staged), split="train", cache_dir=tmp_path / "cache")) == rows_of(rows)
