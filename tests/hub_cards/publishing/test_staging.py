"""What is sent of a folder: all that strangers need, nothing that is its owner's alone; the folder itself stays as it is."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml
from huggingface_hub import ModelCard

from hub_cards.publishing import copying
from hub_cards.publishing.staging import Results, name_itself_as_base, stage_model
from m2c.checkpoints import load_model, load_processor
from m2c.training.records.tracking import TENSORBOARD_FOLDER

from ...test_checkpoints import features


PRIVATE = (
    "checkpoints/step_000001/optimizer.bin",
    "log.jsonl",
    "run.json",
    f"{TENSORBOARD_FOLDER}/stage-1/events",
    ".cache/x",
    "x.partial",
)
RECORDS = {"training.json", "retrieval.png", "learning_curves.png"}
RECORD, ENTRIES = "evaluation/scenes-test.json", ".eval_results/scenes-test.yaml"


@pytest.fixture
def staged(tmp_path) -> Path:
    path = tmp_path / "staged"
    path.mkdir()
    return path


@pytest.fixture
def trained(copy_of):
    """Makes the folder of a run of a kind, with pictures and what is for its owner."""

    def make(kind: str) -> Path:
        folder = copy_of(kind)
        for name in (*PRIVATE, *RECORDS - {"training.json"}):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(name)
        return folder

    return make


@pytest.fixture
def measured(trained, write_json, scenes_record):
    """The same of the model that was measured, with what an earlier publication left."""
    folder = trained("full")
    write_json(folder / RECORD, scenes_record)
    write_json(folder / ".eval_results" / "old.yaml", [])
    return folder


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
    assert sent.keys() == before.keys() - set(PRIVATE) | {"README.md"} and sent.keys() >= RECORDS
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
    assert not set(PRIVATE) & contents(staged).keys()
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


def results_in(card: Path) -> list:
    return ModelCard.load(card).data.eval_results or []


def test_figures_are_linked_from_the_repository(measured, staged):
    before = contents(measured)
    stage_model(measured, staged, "you/model", results=Results(datasets={"scenes": "you/scenes"}))
    entries = yaml.safe_load((staged / ENTRIES).read_text())
    links = {entry["source"]["url"] for entry in entries}
    assert links == {f"https://huggingface.co/you/model/blob/main/{RECORD}"} and len(entries) == 5
    assert {entry["dataset"]["id"] for entry in entries} == {"you/scenes"}
    assert {result.dataset_type for result in results_in(staged / "README.md")} == {"you/scenes"}
    assert f"]({RECORD})" in (staged / "README.md").read_text()
    assert not (staged / ".eval_results" / "old.yaml").exists() and contents(measured) == before


@pytest.mark.parametrize("form", ["as it is", "adapter"])
def test_results_are_added(trained, published, staged, evaluated, scenes_record, monkeypatch, form):
    """Of `m2c evaluate --output`, be it its folder or the file in it; the weights are the same in both forms."""
    monkeypatch.setattr("hub_cards.publishing.staging._base_of", lambda *_: str(published["base"]))
    stage_model(trained("full"), staged, "you/model", form, results=Results((evaluated / "record.json",)))
    assert json.loads((staged / RECORD).read_text()) == scenes_record and (staged / ENTRIES).is_file()
    assert len(results_in(staged / "README.md")) == 5


@pytest.mark.parametrize(("form", "is_named"), [("as it is", False), ("as it is", True), ("merged", True)])
def test_figures_of_other_weights_are_not_published(measured, staged, evaluated, form, is_named):
    """Whether the record lies in the folder or is named; merged weights are others too."""
    if form == "as it is":
        weights = measured / "adapter_model.safetensors"
        content = weights.read_bytes()
        weights.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(ValueError, match="the record of scenes-test is of another model"):
        stage_model(measured, staged, "you/model", form, results=Results((evaluated,) * is_named))


def test_records_stay_behind_when_weights_are_merged(measured, staged):
    stage_model(measured, staged, "you/model", "merged")
    assert not {"evaluation", ".eval_results"} & {path.name for path in staged.iterdir()}
    assert "nothing was measured" in (staged / "README.md").read_text() and not results_in(staged / "README.md")


@pytest.mark.parametrize("form", ["as it is", "merged"])
@pytest.mark.parametrize("name", ["README.md", "adapter_config.json", "evaluation", "notes/nothing"])
def test_links_are_refused_and_nothing_is_written_through_them(trained, staged, tmp_path, name, form):
    folder, outside = trained("full"), tmp_path / "outside"
    outside.mkdir()
    (outside / "README.md").write_text("of all")
    (folder / name).unlink(missing_ok=True)
    (folder / name).parent.mkdir(exist_ok=True)
    target = {"evaluation": outside, "notes/nothing": outside / "nothing"}.get(name, outside / "README.md")
    (folder / name).symlink_to(target)
    with pytest.raises(ValueError, match=f"{name} in .*full is a link; publish a copy that holds the files, as `cp -rL`"):
        stage_model(folder, staged, "you/model", form)
    assert [path.name for path in outside.iterdir()] == ["README.md"] and (outside / "README.md").read_text() == "of all"
    assert not list(staged.iterdir())


def test_a_disk_without_room_is_known_before_it_is_full(folders, staged, monkeypatch):
    """As it is, only small files are copied; merged weights are written anew."""
    monkeypatch.setattr(copying.shutil, "disk_usage", lambda path: SimpleNamespace(free=500_000))
    stage_model(folders["full"], staged, "you/model")
    with pytest.raises(ValueError, match=r"MB are to be written into .*, where 500\.0 kB are free; set TMPDIR to a folder"):
        stage_model(folders["full"], staged, "you/model", "merged")
