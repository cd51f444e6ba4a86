"""What the card of each kind says, and what it admits not to know."""

import json
import re

import pytest
import yaml
from huggingface_hub import ModelCard

from hub_cards import render_card, write_card
from hub_cards.repository import read_repository


KINDS = ("base", "full", "adapter", "merged", "converted")
CLIP = "laion/CLIP-ViT-B-32-laion2B-s34B-b79K"


def heads(text: str) -> list[str]:
    return re.findall(r"^#+ (.*)$", re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE), re.MULTILINE)


def row(text: str, title: str) -> str:
    """The second cell of the only row with this title."""
    (found,) = re.findall(rf"^\| {re.escape(title)} \| (.*) \|$", text, re.MULTILINE)
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_metadata(published, kind, tmp_path):
    """Complete, and read back by the Hub's own classes as it was written."""
    assert read_repository(published[kind]).kind == kind
    card = render_card(published[kind], f"you/{kind}")
    card.save(tmp_path / "README.md")
    data = ModelCard.load(tmp_path / "README.md").data
    assert data.to_dict() == card.data.to_dict()
    assert data.library_name == "transformers" and data.pipeline_tag == "image-feature-extraction"
    assert (
        {"composed-image-retrieval", "zero-shot", "clip", "m2c", "sentence-transformers"} >= set(data.tags) >= {"m2c", "clip"}
    )
    base = {"base": CLIP, "converted": None}.get(kind, "you/base")
    assert data.base_model == base
    relation = {"adapter": "adapter", "converted": None}.get(kind, "finetune")
    assert data.get("base_model_relation") == relation
    assert data.datasets == {"base": ["someone/pairs"], "converted": None}.get(kind, ["someone/pairs", "someone/triplets"])
    assert data.license == (None if kind == "converted" else "mit"), "whoever made the weights decides"
    assert data.eval_results is None, "nothing was measured"


@pytest.mark.parametrize("kind", KINDS)
def test_text(published, kind):
    text = render_card(published[kind], f"you/{kind}").text
    trained = {"base": ["Stage 1: mapping"], "converted": []}.get(kind, ["Stage 1: mapping", "Stage 2: composing"])
    origin = ["Where the weights come from"] if kind == "converted" else ["Training", *trained]
    (title, *others) = heads(text)
    assert others == ["How to use it", "What is in it", *origin, "Results", "Limits", "Papers"]
    wanted = {
        "base": r"\(M2C, stage 1\)",
        "full": r"\(M2C, stages 1 and 2\)",
        "adapter": r"^Adapter .*\(M2C, stage 2\)",
        "merged": "merged",
        "converted": r"\(SEARLE, converted\)",
    }
    assert re.search(wanted[kind], title)
    assert ("peft`, then" in text) == (kind in ("full", "adapter"))
    assert "2504.17990" in text and "2601.14060" in text and text.count("@misc{") == 2
    assert f'path = "you/{kind}"' in text
    assert row(text, "licence of the base CLIP") == ("`apache-2.0`" if kind == "converted" else "`mit`")
    licence = "not stated" if kind == "converted" else "`mit`, that of the CLIP underneath"
    assert row(text, "licence of this repository") == licence
    if kind != "adapter":
        assert row(text, "images") == "64 pixels square, in patches of 8"
    if kind in ("full", "adapter"):
        assert row(text, "composing adapter") == "LoRA, rank 4, alpha 16"
    if kind == "adapter":
        assert "[you/base](https://huggingface.co/you/base)" in text and "not on the Hub" not in text
    if kind == "converted":
        assert row(text, "layout") == "SEARLE, `m2c convert --from searle`" and "2303.15247" in text
        record = json.loads((published[kind] / "conversion.json").read_text())
        assert row(text, "SHA-256") == f"`{record['sha256']}`" and row(text, "file") == "`phi.pt`"


@pytest.mark.parametrize("kind", KINDS)
def test_no_place_of_this_machine_is_named(folders, kind):
    """The adapter records where its base lies."""
    assert str(folders[kind].parent) not in str(render_card(folders[kind]))


def test_both_stages_are_told_from_the_record_of_the_second(folders):
    text = render_card(folders["full"]).text
    first, second = text.split("### Stage 1: mapping")[1].split("### Stage 2: composing")
    assert row(first, "started from") == f"[{CLIP}](https://huggingface.co/{CLIP})"
    pairs = "[someone/pairs](https://huggingface.co/datasets/someone/pairs), 3,000 pairs of image and caption"
    assert row(first, "data") == pairs
    assert row(first, "batch") == "1024 x 2 processes" and row(first, "temperature") == "0.07"
    assert row(first, "what was trained").endswith("; 1,234,567 parameters")
    assert row(first, "`adam_beta2`") == "0.98" and row(second, "`hard_negatives`") == "10"
    assert row(second, "started from").startswith("[you/base]") and "3,000 triplets" in row(second, "data")
    assert row(second, "learning rate") == "0.0001, warm-up 60 steps, then cosine" and row(second, "temperature") == "0.01"


def test_what_was_changed_is_read_from_the_record(copy_of, record_of_training, write_json):
    """Nothing is claimed that the run did not do."""
    folder = copy_of("full")
    stage1 = record_of_training(mapper_only=True)
    usual = {"stage": 2, "model": "you/base", "scale_hard_negatives": True, "soft_teacher": "reference"}
    claims = {
        r"logits of mixed hard negatives are divided": {"scale_hard_negatives": False},
        r"captions of reference images with reference images": {"soft_teacher": "target"},
    }
    write_json(folder / "training.json", record_of_training(stage1, **usual))
    text = render_card(folder).text
    assert "one more negative of its own query" not in text and "2302.03084" in text, "mapper only: Pic2Word"
    for claim, change in claims.items():
        assert claim in text
        write_json(folder / "training.json", record_of_training(stage1, **{**usual, **change}))
        assert claim not in render_card(folder).text
    write_json(folder / "training.json", record_of_training(stage1, **usual, reference_negatives=True))
    assert "one more negative of its own query" in render_card(folder).text


def test_training_from_texts_alone(copy_of, record_of_training, write_json):
    folder, record = copy_of("base"), record_of_training(model="scenes")
    record["config"]["objective"] = "text_only"
    write_json(folder / "training.json", record)
    text = render_card(folder).text
    assert "(LinCIR, stage 1)" in text and "from texts alone" in text and "3,000 captions" in text and "2312.01998" in text
    assert "| temperature |" not in text


def test_a_run_that_may_have_ended_early(copy_of, record_of_training, write_json):
    folder = copy_of("base")
    assert row(render_card(folder).text, "steps") == "300"
    write_json(folder / "training.json", record_of_training(validation_size=10, early_stopping=3, max_steps=300))
    assert row(render_card(folder).text, "steps") == "300 at most: it was to end early without progress"


def test_stage_2_on_converted_weights(copy_of, record_of_training, write_json):
    folder = copy_of("full")
    origin = {"method": "pic2word", "file": "pic2word.pt", "sha256": "ab" * 32, "clip": "openai/clip-vit-large-patch14"}
    write_json(folder / "training.json", record_of_training(origin, stage=2, model="pic2word-large"))
    card = render_card(folder)
    assert "Pic2Word" in card.text and row(card.text, "SHA-256") == f"`{'ab' * 32}`"
    assert row(card.text, "CLIP underneath") == "in the checkpoint that was converted, which does not name it"
    assert row(card.text, "licence of the base CLIP") == "not stated; see its page" and card.data.license is None
    assert card.data.base_model is None, "the clip in that record is where the tokenizer came from"


def test_what_is_not_recorded_is_called_so(copy_of, write_json):
    """One fact after the other is taken away."""
    folder = copy_of("full")
    record = json.loads((folder / "training.json").read_text())
    rows = {"learning_rate": "learning rate", "tau": "temperature", "max_steps": "steps", "seed": "precision, seed"}
    for name, title in rows.items():
        without = {**record, "config": {key: value for key, value in record["config"].items() if key != name}}
        write_json(folder / "training.json", without)
        second = render_card(folder).text.split("### Stage 2")[1]
        assert "not recorded" in row(second, title) and second.count("not recorded") == 1
    for name, title in {"training_rows": "data", "trained_parameters": "what was trained"}.items():
        write_json(folder / "training.json", {key: value for key, value in record.items() if key != name})
        second = render_card(folder).text.split("### Stage 2")[1]
        assert re.search(r"\bmissing (triplets|parameters)", row(second, title))
    write_json(folder / "training.json", {**record, "started_from": None})
    card = render_card(folder)
    assert "Missing: what stage 1 was trained on" in card.text and row(card.text, "CLIP underneath") == "not recorded"
    assert row(card.text, "licence of this repository") == "not stated" and card.data.license is None
    (folder / "training.json").unlink()
    assert "Missing: no record of the training" in render_card(folder).text
    assert "Missing: no figures" in render_card(folder).text


def test_a_licence_of_one_s_own(folders):
    card = render_card(folders["base"], licence="cc-by-nc-4.0")
    assert card.data.license == "cc-by-nc-4.0" and row(card.text, "licence of this repository") == "`cc-by-nc-4.0`"
    assert row(card.text, "licence of the base CLIP") == "`mit`"


def test_an_adapter_whose_base_is_on_no_hub(copy_of, write_json):
    folder = copy_of("adapter")
    adapter = json.loads((folder / "adapter_config.json").read_text())
    write_json(folder / "adapter_config.json", {**adapter, "base_model_name_or_path": "/home/me/runs/stage1"})
    card = render_card(folder)
    assert "`stage1`" in card.text and "That base is not on the Hub" in card.text
    assert "/home/me" not in str(card) and card.data.base_model is None and card.data.get("base_model_relation") is None


def test_pictures_that_are_there(copy_of):
    folder = copy_of("full")
    assert "![" not in render_card(folder).text
    for name in ("retrieval.png", "learning_curves.png"):
        (folder / name).write_bytes(b"")
        assert f"]({name})" in render_card(folder).text
    assert row(render_card(folder).text, "licence of the pictures") == "not stated"
    text = render_card(folder, licence="mit", pictures_licence="cc-by-4.0").text
    assert row(text, "licence of the pictures") == "`cc-by-4.0`" and row(text, "licence of this repository") == "`mit`"


def test_written_beside_the_model(copy_of):
    folder = copy_of("base")
    path = write_card(folder)
    assert path == folder / "README.md" and str(ModelCard.load(path)) == str(render_card(folder))
    assert 'path = "."  # this folder' in path.read_text()


def test_hostile_names(copy_of, record_of_training, write_json, hostile):
    """Whatever a name holds, metadata and text stay what they are, and the name can be read in the text."""
    folder = copy_of("full")
    plain = heads(render_card(folder).text)
    stage1 = record_of_training(model=hostile, dataset=hostile, dataset_split=hostile)
    stage1["config"][hostile] = hostile
    write_json(folder / "training.json", record_of_training(stage1, stage=2, model=hostile, dataset="someone/triplets"))
    adapter = json.loads((folder / "adapter_config.json").read_text())
    write_json(folder / "adapter_config.json", {**adapter, "r": hostile})
    write_card(folder)
    card = ModelCard.load(folder / "README.md")
    assert heads(card.text) == plain and card.data.datasets == ["someone/triplets"] and card.data.base_model is None
    assert "| injection after text blocks (from 0) | 0, 2 of 4 |" in card.text
    words = [word for word in re.split(r"[^\w{}<>:&*#!]+", hostile) if word.isprintable()]
    assert all(word in card.text for word in words)


def test_hostile_licences_are_quoted(folders, hostile):
    hostile = hostile.encode("utf-8", "replace").decode("utf-8")
    card = ModelCard(str(render_card(folders["base"], licence=hostile)))
    assert card.data.license == hostile and yaml.safe_load(card.data.to_yaml())["library_name"] == "transformers"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("training.json", '{"config": ', "training.json is no complete JSON"),
        ("training.json", "[]", "training.json should hold an object; it holds a list"),
        ("training.json", '{"config": 3}', "training.json is no record of a training run"),
        ("config.json", "nonsense", "config.json is no complete JSON"),
        ("conversion.json", '{"method": "magic"}', "names no method out of m2c, pic2word, searle, lincir"),
        ("evaluation/cirr-val.json", "{}", "cirr-val.json is no record of m2c evaluate --output: it has no 'benchmark'"),
    ],
)
def test_damaged_records_are_named(copy_of, name, content, message):
    folder = copy_of("base")
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_text(content)
    with pytest.raises(ValueError, match=message):
        render_card(folder)


def test_what_is_no_model_is_named(tmp_path, folders):
    with pytest.raises(ValueError, match=r"there is no model in .*neither config.json nor adapter_config.json"):
        render_card(tmp_path)
    with pytest.raises(ValueError, match="Repo id"):
        render_card(folders["base"], "not a repository")
