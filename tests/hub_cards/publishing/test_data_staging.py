"""What is sent of a data set: all of it, in a form that the Hub takes and `load_dataset` reads."""

from pathlib import Path

import pytest
from datasets import Dataset, DatasetDict, Features, Image, Value, load_dataset

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
    assert stage_dataset(triplets, staged, "you/triplets", "mit", "Drawn by a script.") == {"train": 4}
    sent = contents(staged)
    assert not is_model(triplets) and sent.keys() == before.keys() | {"README.md"} and len(sent) == 10
    assert all(sent[name] == before[name] for name in before)
    assert b"Drawn by a script." in sent["README.md"] and b"license: mit" in sent["README.md"]


def test_names_that_are_private_in_a_run_are_not_in_a_data_set(tmp_path, staged):
    parts = {"checkpoints": scenes.triplets(1, seed=1), "trackers": scenes.triplets(2, seed=2)}
    folder = write_image_folder(DatasetDict(parts), tmp_path / "splits")
    (folder / ".cache").mkdir()
    (folder / ".cache" / "mine").touch()
    assert stage_dataset(folder, staged, "you/triplets", "mit", None) == {"checkpoints": 1, "trackers": 2}
    found = load_dataset(str(staged), cache_dir=tmp_path / "cache")
    assert {name: len(rows) for name, rows in found.items()} == {"checkpoints": 1, "trackers": 2}
    assert not (staged / ".cache").exists()


def test_pictures_that_are_missing_are_counted(triplets, staged):
    """Whatever letters stand in the texts; some end a line elsewhere."""
    for path in sorted(triplets.glob("target/*"))[:3]:
        path.unlink()
    metadata = (triplets / "metadata.jsonl").read_text().replace("the", "the\u2028")
    (triplets / "metadata.jsonl").write_text(metadata)
    with pytest.raises(ValueError, match=r"^3 of the pictures of .*triplets are not there, .* such as target/000000"):
        stage_dataset(triplets, staged, "you/triplets", "mit", None)


@pytest.mark.parametrize("place", [".hidden/picture.png", "../picture.png", "{}/picture.png"])
def test_pictures_that_are_there_and_would_not_be_sent_are_missing(triplets, staged, place, tmp_path):
    """Hidden, beside the folder, or anywhere on this machine."""
    place = place.format(tmp_path)
    (triplets / place).parent.mkdir(exist_ok=True)
    (triplets / "target" / "000000.png").rename(triplets / place)
    metadata = (triplets / "metadata.jsonl").read_text()
    (triplets / "metadata.jsonl").write_text(metadata.replace("target/000000.png", place))
    with pytest.raises(ValueError, match=r"^1 of the pictures of .*triplets are not there, hidden, or elsewhere, such as "):
        stage_dataset(triplets, staged, "you/triplets", "mit", None)


def test_names_may_take_a_way_round(triplets, staged):
    metadata = (triplets / "metadata.jsonl").read_text()
    (triplets / "metadata.jsonl").write_text(metadata.replace("target/000000.png", "./reference/../target/000000.png"))
    assert stage_dataset(triplets, staged, "you/triplets", "mit", None) == {"train": 4}


def test_pictures_that_are_damaged_are_counted(triplets, staged):
    for path in sorted(triplets.glob("target/*"))[1:3]:
        path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(ValueError, match=r"^2 of the pictures of .*triplets cannot be read, such as .*/target/000001.png \("):
        stage_dataset(triplets, staged, "you/triplets", "mit", None)


def test_pictures_that_are_damaged_in_parquet_files_are_counted(tmp_path, staged):
    (picture,) = scenes.triplets(1).cast_column("target", Image(decode=False))["target"]
    pictures = [{"bytes": data, "path": None} for data in (picture["bytes"], picture["bytes"][:60], b"no picture")]
    rows = {"image": [*pictures, None], "caption": ["a", "b", "c", "d"]}
    (tmp_path / "pairs").mkdir()
    features = Features({"image": Image(), "caption": Value("string")})
    Dataset.from_dict(rows, features=features).to_parquet(tmp_path / "pairs" / "train.parquet")
    with pytest.raises(ValueError, match=r"holds 2 pictures of column 'image' that cannot be read; of the first one: unread"):
        stage_dataset(tmp_path / "pairs", staged, "you/pairs", "mit", None)


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
    assert stage_dataset(folder, staged, "you/triplets", "mit", None) == {"train": 7}
    parts = [f"data/train-0000{part}-of-00003.parquet" for part in range(3)]
    assert sorted(contents(staged)) == ["README.md", *parts]
    assert rows_of(load_dataset(str(staged), split="train", cache_dir=tmp_path / "cache")) == rows_of(rows)
