"""`m2c publish` against a Hub on this machine: what strangers load is what lay in the folder."""

import json
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
import yaml
from huggingface_hub import ModelCard
from PIL import Image
from torch.nn.functional import cosine_similarity

from hub_cards import write_card, write_results
from m2c.checkpoints import load_model, load_processor
from m2c.data import scenes
from m2c.data.benchmarks import write_benchmark
from m2c.data.benchmarks.scenes import load_scenes
from m2c.data.image_folder import write_image_folder

from ...hub.faults import DropAnswer
from ...hub.test_models import embed
from ...hub.user_code import clear_faults
from ...test_checkpoints import features
from .user_code import embed_at, publish, read_triplets, run_card


# What is published where: the kind of folder, and how. Every form is loaded by the visitors below. While it is published, only
# those are loaded for which that is not done in the usual way, as it takes seconds each time.
FORMS = {
    "ana/base": ("base",),
    "ana/full": ("full",),
    "ana/adapter": ("full", "--adapter-only", "--base", "ana/base"),
    "ana/merged": ("full", "--merge"),
    "ana/converted": ("converted", "--private"),
    "ana/measured": (
        "measured",
        *("--licence", "mit", "--pictures-licence", "cc-by-4.0"),
        *("--results-dataset", "scenes=ana/scenes"),
    ),
}
UNUSUAL = ("ana/merged", "ana/adapter")
COLORS = ("red", "green", "blue")


@pytest.fixture(scope="module")
def sources(folders, scenes_record, tmp_path_factory) -> dict[str, Path]:
    """Folders to publish from; one as the quickstart leaves it, with figures, a picture and a card that has no home yet."""
    measured = shutil.copytree(folders["full"], tmp_path_factory.mktemp("run") / "measured")
    Image.new("RGB", (30, 20), "green").save(measured / "retrieval.png")
    write_results(measured, [scenes_record])
    write_card(measured)
    return {**folders, "measured": measured}


@pytest.fixture(scope="module")
def datasets(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("datasets")
    return {
        "ana/triplets": write_image_folder(scenes.triplets(6), folder / "triplets"),
        "ana/benchmark": write_benchmark(load_scenes(3), folder / "benchmark"),
    }


@pytest.fixture(scope="module")
def session(hub, client, folders, sources, datasets) -> dict:
    """Publishes everything; in the place of the full model another one was before. The merged one is published while the Hub
    takes everything and gives nothing of it ("unseen"), and once more when it gives. Then the owner tries the benchmark."""
    commands = {name: [sources[kind], name, *options] for name, (kind, *options) in FORMS.items()}
    for name, folder in datasets.items():
        commands[name] = [folder, name, "--licence", "apache-2.0", "--source", "Drawn by `m2c.data.scenes`."]
    before = partial(publish, arguments=[folders["base"], "ana/full"], probes=False)
    publishing = [partial(publish, arguments=arguments, probes=name in UNUSUAL) for name, arguments in commands.items()]
    trying = partial(run_card, repo_id="ana/benchmark", repo_type="dataset")
    hub.faults.add("HEAD /ana/merged/resolve/", DropAnswer(), times=None)
    again = publishing[list(commands).index("ana/merged")]
    *outcomes, _, repeated = client.session(before, *publishing, trying, partial(clear_faults), again)
    assert not [outcome for outcome in (*outcomes, repeated) if outcome.error], outcomes
    values = dict(zip(["before", *commands, "tried"], [outcome.value for outcome in outcomes]))
    values |= {"unseen": values["ana/merged"], "ana/merged": repeated.value}
    assert {values[name]["code"] for name in ("before", *commands)} == {0}, values
    return values


@pytest.fixture(scope="module")
def said(session, datasets) -> dict[str, str]:
    return {name: session[name]["said"] for name in (*FORMS, *datasets)}


@pytest.fixture(scope="module")
def embedding(hub, said) -> dict[str, partial]:
    """Calls that load what was published, an adapter by its name, as revisions would be of its base too, all else by commit."""
    revisions = {name: hub.repository(name).at().oid for name in FORMS if name != "ana/adapter"}
    calls = {name: partial(embed, repo_id=name, revision=revisions.get(name, "main")) for name in FORMS}
    full = hub.repository("ana/full")
    return {**calls, "before": partial(embed, repo_id="ana/full", revision=full.at(full.at().parent).oid)}


@pytest.fixture(scope="module")
def visitor(stranger, tokens):
    """Without our packages, but with a token, as one repository is private."""
    return replace(stranger, token=tokens["ana"])


@pytest.fixture(scope="module")
def online(hub, visitor, embedding) -> dict[str, dict]:
    """All that a visitor does, in one process."""
    pinned = hub.repository("ana/adapter").at().oid
    cards = [partial(run_card, repo_id=name) for name in FORMS]
    card = partial(run_card, repo_id="ana/triplets", repo_type="dataset")
    others = [partial(embed_at, repo_id="ana/adapter", revision=pinned), partial(read_triplets, repo_id="ana/triplets")]
    outcomes = visitor.session(*embedding.values(), *cards, card, *others)
    assert not [outcome for outcome in outcomes if outcome.error], outcomes[0].output
    values = iter([outcome.value for outcome in outcomes])
    return {
        "features": {name: torch.tensor(next(values)) for name in embedding},
        "cards": {name: next(values) for name in (*FORMS, "ana/triplets")},
        "pinned": torch.tensor(next(values)),
        "triplets": next(values),
    }


@pytest.fixture(scope="module")
def models(folders, sources) -> dict:
    """Models before they were published, with their processors, by the names that they were given."""
    kinds = {name: sources[kind] for name, (kind, *_) in FORMS.items()} | {"before": folders["base"]}
    return {name: (load_model(str(folder)).eval(), load_processor(str(folder))) for name, folder in kinds.items()}


@pytest.mark.parametrize("name", [*FORMS, "before"])
def test_features_are_those_from_before(models, online, name):
    torch.testing.assert_close(online["features"][name], features(*models[name]), atol=1e-5, rtol=1e-5)


def test_an_adapter_at_a_commit(online):
    torch.testing.assert_close(online["pinned"], online["features"]["ana/adapter"], atol=1e-5, rtol=1e-5)


def test_with_our_packages(client, embedding, online):
    """Where the flag is not needed."""
    outcomes = client.session(*(partial(call, trust_remote_code=False) for call in embedding.values()))
    for outcome, name in zip(outcomes, embedding, strict=True):
        assert not outcome.error, outcome.output
        torch.testing.assert_close(torch.tensor(outcome.value), online["features"][name], atol=1e-5, rtol=1e-5, msg=name)


def test_forms_differ_where_they_should(online):
    for name in ("ana/base", "ana/converted", "before"):
        assert (online["features"][name] - online["features"]["ana/full"]).abs().max() > 1e-2


@pytest.mark.parametrize("has_our_packages", [True, False])
def test_offline_from_the_cache(hub, visitor, embedding, online, has_our_packages):
    """Nobody is asked."""
    before = len(hub.requests())
    calls = [partial(call, trust_remote_code=not has_our_packages) for call in embedding.values()]
    outcomes = replace(visitor, offline=True, has_our_packages=has_our_packages).session(*calls)
    for outcome, name in zip(outcomes, embedding, strict=True):
        assert not outcome.error, outcome.output
        torch.testing.assert_close(torch.tensor(outcome.value), online["features"][name], atol=1e-5, rtol=1e-5, msg=name)
    assert len(hub.requests()) == before


@torch.no_grad()
@pytest.mark.parametrize("name", FORMS)
def test_the_lines_of_the_card_run(models, online, name):
    model, processor = models[name]
    pictures = [Image.new("RGB", (224, 224), color) for color in COLORS]
    query = model.get_composed_features(**processor(images=pictures[0], text="is blue", return_tensors="pt")).pooler_output
    gallery = model.get_image_features(**processor(images=pictures, return_tensors="pt")).pooler_output
    card = online["cards"][name]
    scores = cosine_similarity(query, gallery)
    torch.testing.assert_close(torch.tensor(card["values"]["query"]), query, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(torch.tensor(card["values"]["gallery"]), gallery, atol=1e-5, rtol=1e-4)
    assert card["printed"] == str(scores.argsort(descending=True))
    if name == "ana/adapter":
        assert card["answers"] is None and "similarities" not in card["values"], "it has no configuration to name them"
        return
    answers = {answer["index"]: answer["score"] for answer in card["answers"]}
    torch.testing.assert_close(torch.tensor([answers[index] for index in range(3)]), scores, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(torch.tensor(card["values"]["similarities"]), scores[None], atol=1e-5, rtol=1e-4)


def test_the_lines_of_the_card_are_said(said, online):
    for name, card in online["cards"].items():
        assert f'"{name}"' in card["code"] and f"\n\n{card['code']}" in said[name]


def test_figures_arrive_as_they_were_measured(hub, scenes_record, sources):
    """With the picture, and a link to the record for each; the folder of the run has none, as it has no home."""
    files = hub.repository("ana/measured").files()
    record, table = "evaluation/scenes-test.json", ".eval_results/scenes-test.yaml"
    assert {record, table, "retrieval.png"} <= files.keys() and not (sources["measured"] / ".eval_results").exists()
    assert json.loads(files[record]) == {**scenes_record, "dataset": "ana/scenes"}
    entries = yaml.safe_load(files[table])
    assert {entry["source"]["url"] for entry in entries} == {f"https://huggingface.co/ana/measured/blob/main/{record}"}
    card = ModelCard(files["README.md"].decode())
    assert sorted(entry["value"] for entry in entries) == sorted(scenes_record["figures"].values())
    assert {result.metric_name: result.metric_value for result in card.data.eval_results} == scenes_record["figures"]
    assert card.data.license == "mit" and "| licence of the pictures | `cc-by-4.0` |" in card.text
    assert f"]({record})" in card.text and "](retrieval.png)" in card.text


def test_triplets_come_back_with_every_pixel(online):
    expected = []
    for row in scenes.triplets(6):
        pictures = {name: row[name].convert("RGB").tobytes().hex() for name in ("reference", "target")}
        expected.append({**row, **pictures})
    assert online["triplets"] == expected


def test_the_cards_of_data_sets_run(session, online):
    first, text = scenes.triplets(6)[0], online["cards"]["ana/triplets"]["printed"]
    assert text.startswith("6 {") and repr(first["modification"]) in text
    benchmark = load_scenes(3)
    assert session["tried"]["printed"] == f"{benchmark.queries[0]} {benchmark.picture(0).size}"


def test_what_is_in_each_repository(hub, said):
    contents = {name: set(hub.repository(name).files()) for name in FORMS}
    assert "adapter_model.safetensors" in contents["ana/full"] - contents["ana/base"]
    assert not contents["ana/adapter"] & {"config.json", "model.safetensors", "modules.json"}
    assert not {name for name in contents["ana/merged"] if name.startswith("adapter")}
    assert [name for name in FORMS if hub.repository(name).private] == ["ana/converted"]


def test_what_is_said(hub, said, datasets):
    for name, text in said.items():
        kind = "dataset" if name in datasets else "model"
        assert f"Published: {hub.url}/{'datasets/' * (kind == 'dataset')}{name}\n" in text
        files = hub.repository(name, kind).files().keys() - {".gitattributes"}
        assert f"For the {kind} {name}:\n" in text and f"  {len(files)} files " in text
        assert all(f"  {path} " in text for path in files)
    assert "model.safetensors: 100%" in said["ana/base"], "the upload has a progress bar"


def test_what_was_published_but_cannot_be_loaded_is_said(hub, session):
    said = session["unseen"]["said"].strip().splitlines()[-1]
    assert said.startswith(f"error: {hub.url}/ana/merged was published, but ana/merged does not load in a fresh process: ")
    assert "RemoteProtocolError" in said and "If that was the connection, run the same command again" in said
    assert session["unseen"]["code"] == 1


def test_the_same_command_looks_once_more(hub, session):
    """Nothing is sent then, and what is there is loaded."""
    assert session["ana/merged"]["code"] == 0 and "All of it is there already." in session["ana/merged"]["said"]
    assert len(hub.repository("ana/merged").commits) == 2 and len(hub.requests("PUT .*/ana/merged/")) == 1


def test_no_token_is_ever_said(tokens, session, online):
    assert not any(token in repr(session) + repr(online) for token in tokens.values())
