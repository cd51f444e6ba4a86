"""What is sent of a folder: all that strangers need, nothing that is its owner's alone; the folder itself stays as it is."""

import json
from pathlib import Path

import pytest
import torch

from hub_cards.publishing.staging import is_model, name_itself_as_base, stage_dataset, stage_model
from m2c.checkpoints import load_model, load_processor
from m2c.data import scenes
from m2c.data.image_folder import write_image_folder

from ...test_checkpoints import features


PRIVATE = ("checkpoints/step_000001/optimizer.bin", "log.jsonl", "run.json", "trackers/run/events", ".cache/x", "x.partial")
RECORDS = ("training.json", "evaluation/cirr-val.json", ".eval_results/cirr-val.yaml", "learning_curves.png")


@pytest.fixture
def staged(tmp_path) -> Path:
    path = tmp_path / "staged"
    path.mkdir()
    return path


@pytest.fixture
def trained(copy_of, scenes_record):
    """Makes the folder of a run of a kind, with records and what is for its owner."""

    def make(kind: str) -> Path:
        folder = copy_of(kind)
        for name in (*PRIVATE, *RECORDS[1:]):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(name)
        (folder / "evaluation" / "cirr-val.json").write_text(json.dumps(scenes_record))
        (folder / ".eval_results" / "cirr-val.yaml").write_text("- {dataset: {id: cirr, task_id: val}, value: 1.0}\n")
        return folder

    return make


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def base_of(folder: Path):
    return json.loads((folder / "adapter_config.json").read_text())["base_model_name_or_path"]


@pytest.mark.parametrize("kind", ["base", "full"])
def test_as_it_is(trained, staged, kind):
    folder = trained(kind)
    before = contents(folder)
    stage_model(folder, staged, "you/model", licence="mit")
    sent = contents(staged)
    assert sent.keys() == before.keys() - set(PRIVATE) | {"README.md"}
    assert all(sent[name] == before[name] for name in sent if name != "README.md")
    assert b'from_pretrained("you/model"' in sent["README.md"] or b'path = "you/model"' in sent["README.md"]
    assert b"license: mit" in sent["README.md"]
    name_itself_as_base(staged, "you/model")
    assert kind == "base" or base_of(staged) == "you/model"
    assert contents(folder) == before, "what is linked must not be written to"


def test_a_full_folder_that_names_itself_still_loads_where_it_lies(folders, staged):
    """Nobody is asked for `you/model`, which does not exist."""
    stage_model(folders["full"], staged, "you/model")
    name_itself_as_base(staged, "you/model")
    processor = load_processor(str(staged))
    ours, original = (features(load_model(str(path)), processor) for path in (staged, folders["full"]))
    assert torch.equal(ours, original)


def test_merged(trained, staged):
    folder = trained("full")
    stage_model(folder, staged, "you/model", "merged")
    assert not list(staged.glob("adapter*")) and {"config.json", "model.safetensors", *RECORDS} <= contents(staged).keys()
    assert "stages 1 and 2 merged" in (staged / "README.md").read_text()
    merged, full = load_model(str(staged)), load_model(str(folder))
    processor = load_processor(str(folder))
    torch.testing.assert_close(features(merged, processor), features(full, processor), atol=1e-5, rtol=1e-5)


def test_an_adapter_alone(trained, staged):
    folder = trained("adapter")
    stage_model(folder, staged, "you/model", base="you/base")
    sent = contents(staged)
    assert sent.keys() == contents(folder).keys() - set(PRIVATE) | {"README.md"}
    assert b"base_model: you/base\n" in sent["README.md"] and b"base_model_relation: adapter\n" in sent["README.md"]
    name_itself_as_base(staged, "you/model")
    assert base_of(staged) == "you/base" and base_of(folder) != "you/base"


@pytest.mark.parametrize(
    ("kind", "arguments", "message"),
    [
        ("base", ("adapter",), "has no adapter of stage 2, which --adapter-only is about"),
        ("base", ("merged",), "has no adapter of stage 2, which --merge is about"),
        ("adapter", (), "an adapter alone needs its base on the Hub, and 'base' is no repository"),
        ("full", ("adapter", "stage1"), "an adapter alone needs its base on the Hub, and 'stage1' is no repository"),
    ],
)
def test_forms_that_cannot_be(folders, staged, kind, arguments, message):
    with pytest.raises(ValueError, match=message):
        stage_model(folders[kind], staged, "you/model", *arguments)


def test_what_is_no_retriever(copy_of, clip_path, staged):
    with pytest.raises(ValueError, match="holds a model of type 'clip', and no retriever"):
        stage_model(clip_path, staged, "you/model")
    folder = copy_of("converted")
    (folder / "processor_config.json").unlink()
    with pytest.raises(ValueError, match="a model without a processor; convert it again with --clip"):
        stage_model(folder, staged, "you/model")


@pytest.fixture
def triplets(tmp_path) -> Path:
    return write_image_folder(scenes.triplets(4), tmp_path / "triplets")


def test_a_data_set(triplets, staged):
    before = contents(triplets)
    stage_dataset(triplets, staged, "you/triplets", "mit", "Drawn by a script.")
    sent = contents(staged)
    assert not is_model(triplets) and sent.keys() == before.keys() | {"README.md"} and len(sent) == 10
    assert all(sent[name] == before[name] for name in before)
    assert b"Drawn by a script." in sent["README.md"] and b"license: mit" in sent["README.md"]


def test_pictures_that_are_missing_are_counted(triplets, staged):
    """Whatever letters stand in the texts; some end a line elsewhere."""
    for path in sorted(triplets.glob("target/*"))[:3]:
        path.unlink()
    metadata = (triplets / "metadata.jsonl").read_text().replace("the", "the\u2028")
    (triplets / "metadata.jsonl").write_text(metadata)
    with pytest.raises(ValueError, match=r"triplets lacks 3 of its pictures, such as target/000000"):
        stage_dataset(triplets, staged, "you/triplets", None, None)


def test_files_are_copied_where_links_cannot_be(triplets, staged, monkeypatch):
    def link(*_):
        raise OSError("another file system")

    monkeypatch.setattr("os.link", link)
    stage_dataset(triplets, staged, "you/triplets", None, None)
    assert contents(triplets).items() <= contents(staged).items()
