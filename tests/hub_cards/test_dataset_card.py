"""Cards of data sets: what they say is in the folder, and their code loads it."""

import io
import subprocess
import sys
from contextlib import redirect_stdout

import pytest
from datasets import Dataset, DatasetDict, get_dataset_config_names, load_dataset
from datasets import Image as ImageColumn
from huggingface_hub import DatasetCard
from PIL import Image

from hub_cards import render_dataset_card, write_dataset_card
from m2c.data import scenes
from m2c.data.benchmarks import write_benchmark
from m2c.data.benchmarks.scenes import load_scenes
from m2c.data.image_folder import write_image_folder


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Folders by kind, with their cards."""
    place = tmp_path_factory.mktemp("data")
    write_image_folder(scenes.triplets(5, seed=1), place / "triplets")
    write_image_folder(scenes.pairs(4, seed=1), place / "pairs")
    parts = {"train": scenes.triplets(3, seed=1), "held-out": scenes.triplets(2, seed=2)}
    write_image_folder(DatasetDict({"train": parts["train"], "held_out": parts["held-out"]}), place / "splits")
    (place / "splits" / "held_out").rename(place / "splits" / "held-out [2]")
    benchmark = load_scenes(2)
    write_benchmark(benchmark, place / "benchmark")
    write_benchmark(benchmark, place / "parquet", format="parquet")
    for folder in place.iterdir():
        write_dataset_card(folder, licence="cc-by-4.0", source="Drawn by a script.")
    return place


def run(code: str, place, home) -> str:
    """What a block prints, in a folder."""
    environment = {"PATH": "", "HF_HOME": str(home), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=place, env=environment)
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.mark.parametrize("kind", ["triplets", "pairs", "splits", "benchmark", "parquet"])
def test_metadata(data, kind):
    card = DatasetCard.load(data / kind / "README.md")
    again = render_dataset_card(data / kind, licence="cc-by-4.0", source="Drawn by a script.")
    assert card.data.to_dict() == again.data.to_dict() and card.text.strip() == again.text.strip()
    assert card.data.license == "cc-by-4.0" and card.data.size_categories == ["n<1K"]
    kinds = {"splits": "triplets", "parquet": "benchmark"}
    assert card.data.tags == ["composed-image-retrieval", "m2c", kinds.get(kind, kind)]
    assert card.data.task_categories == ["image-feature-extraction"]
    assert "Drawn by a script." in card.text and "`cc-by-4.0`" in card.text and "Missing" not in card.text


def test_the_hub_finds_every_row(data, tmp_path):
    """By the metadata of the card, as the viewer and `load_dataset` read them."""

    def load(kind: str, *config):
        return load_dataset(str(data / kind), *config, cache_dir=tmp_path)

    triplets = load("triplets")["train"]
    assert len(triplets) == 5 and set(triplets.column_names) == {"reference", "target", "modification", "reference_caption"}
    assert isinstance(triplets[0]["target"], Image.Image)
    assert len(load("pairs")["train"]) == 4
    assert {name: len(part) for name, part in load("splits").items()} == {"train": 3, "held_out_2_": 2}
    assert len(load("benchmark", "gallery")["train"]) == len(load("parquet", "gallery")["train"]) == 12
    assert len(load("parquet", "queries")["train"]) == 2
    assert get_dataset_config_names(str(data / "benchmark")) == ["gallery"]


def test_text(data):
    def text(kind: str) -> str:
        return DatasetCard.load(data / kind / "README.md").text

    assert "| `train` | 5 | `reference`, `target` | `modification`, `reference_caption` |" in text("triplets")
    assert "| `train` | 4 | `image` | `caption` |" in text("pairs")
    assert "| `held_out_2_` | 2 | `reference`, `target` |" in text("splits")
    for kind in ("benchmark", "parquet"):
        for line in ("| queries | 2 |", "| images in the gallery | 12 |", "| queries with a subset of their own | 2 |"):
            assert line in text(kind)
        assert "| queries whose target is known | 2 |" in text(kind) and "| queries with semantic aspects | 0 |" in text(kind)
    assert "m2c train --stage 2" in text("triplets") and "m2c train --stage 1" in text("pairs")


@pytest.mark.parametrize("kind", ["triplets", "benchmark"])
def test_the_code_runs_in_a_fresh_process(data, code_blocks, kind, tmp_path):
    (block,) = code_blocks((data / kind / "README.md").read_text())
    printed = run(block, data / kind, tmp_path)
    assert (
        ("the circle is now striped" in printed) if kind == "triplets" else ("'target_id'" in printed and "(64, 64)" in printed)
    )


def test_the_code_for_the_hub(data, code_blocks, monkeypatch):
    """The blocks that name a repository, with the one function replaced that would fetch it."""
    (block,) = code_blocks(str(render_dataset_card(data / "parquet", "you/benchmark")))
    asked = []

    def fetch(name, repo_type):
        asked.append((name, repo_type))
        return str(data / "parquet")

    monkeypatch.setattr("huggingface_hub.snapshot_download", fetch)
    with redirect_stdout(io.StringIO()) as printed:
        exec(block, {})
    assert asked == [("you/benchmark", "dataset")] and "(64, 64)" in printed.getvalue()
    (block,) = code_blocks(str(render_dataset_card(data / "triplets", "you/triplets")))
    assert block.startswith("from datasets") and 'path = "you/triplets"\nrows = load_dataset(path, split="train")' in block


def test_what_is_not_told_is_called_missing(data):
    card = render_dataset_card(data / "triplets")
    assert "Missing: nothing is said of where images and texts come from." in card.text
    assert "Licence: not stated." in card.text and card.data.license is None


def test_blank_texts_are_counted(tmp_path):
    picture = Image.new("RGB", (8, 8))
    rows = {"image": [picture] * 4, "caption": ["a", "", "  ", None], "number": [1, 2, 3, 4]}
    write_image_folder(Dataset.from_dict(rows), tmp_path / "pairs")
    assert "| `train` | 4 | `image` | `caption` (3 blank) |" in render_dataset_card(tmp_path / "pairs").text


def test_hostile_names(tmp_path, hostile):
    """Of columns, of a benchmark's owner, and in what its author says."""
    clean = hostile.encode("utf-8", "replace").decode("utf-8")
    picture = Image.new("RGB", (8, 8))
    write_image_folder(Dataset.from_dict({"image": [picture], clean: ["text"]}), tmp_path / "pairs")
    plain = render_dataset_card(tmp_path / "pairs")
    card = DatasetCard(str(render_dataset_card(tmp_path / "pairs", "you/pairs", hostile.replace("\ud83e", ""), hostile)))
    assert card.data.license == hostile.replace("\ud83e", "") and card.data.configs == plain.data.configs
    assert card.text.startswith(plain.text[:200]) and clean in card.text


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "holds no data set: it has neither metadata.jsonl, nor folders with one, nor parquet files, nor queries.jsonl"),
        ({"metadata.jsonl": '{"file_name": "a.png"}\n{"file_na'}, "line 2 of .*metadata.jsonl is no object of JSON"),
        ({"metadata.jsonl": "3\n"}, "line 1 of .*metadata.jsonl is no object of JSON"),
        ({"a b/metadata.jsonl": "{}", "a_b/metadata.jsonl": "{}"}, "differ in punctuation only"),
        ({"queries.jsonl": "{}"}, "gallery"),
    ],
)
def test_damage_is_named(tmp_path, files, message):
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content)
    with pytest.raises(ValueError, match=message):
        render_dataset_card(tmp_path)


@pytest.fixture
def tables(tmp_path):
    """Triplets in parquet files, as `datasets` writes them: two parts of a split, and another with a sign in its name."""
    for name, rows in {"data/train-00000-of-00002": 3, "data/train-00001-of-00002": 2, "data/held-out": 1}.items():
        (tmp_path / "data").mkdir(exist_ok=True)
        scenes.triplets(rows, seed=rows).to_parquet(tmp_path / f"{name}.parquet")
    return tmp_path


def test_parquet_files(tables, tmp_path_factory):
    """What `m2c train` reads is what can be published."""
    card = render_dataset_card(tables)
    assert "| `train` | 5 | `reference`, `target` | `modification`, `reference_caption` |" in card.text
    assert "| `held_out` | 1 |" in card.text and card.data.tags[-1] == "triplets"
    write_dataset_card(tables)
    found = load_dataset(str(tables), cache_dir=tmp_path_factory.mktemp("cache"))
    assert {name: len(rows) for name, rows in found.items()} == {"train": 5, "held_out": 1}


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda folder: (folder / "a.parquet").write_bytes(b"PAR1"), "a.parquet is no complete parquet file"),
        (lambda folder: Dataset.from_dict({"text": ["a"]}).to_parquet(folder / "a.parquet"), "has no column of images"),
        (lambda folder: scenes.triplets(1).to_parquet(folder / "train.parquet"), "one split have different names or places"),
    ],
)
def test_parquet_files_that_cannot_be(tables, write, message):
    write(tables)
    with pytest.raises(ValueError, match=message):
        render_dataset_card(tables)


def test_pictures_of_a_parquet_file_that_lie_elsewhere(tmp_path):
    """As `to_parquet` writes them, which other machines would never see."""
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    rows = Dataset.from_dict({"image": [str(tmp_path / "a.png")] * 2 + [None], "caption": ["a", " ", "b"]})
    rows.cast_column("image", ImageColumn()).to_parquet(tmp_path / "train.parquet")
    with pytest.raises(ValueError, match=r"names 2 pictures of column 'image' that it does not hold; .*save_to_disk"):
        render_dataset_card(tmp_path)
