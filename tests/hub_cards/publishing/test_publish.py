"""`m2c publish` against a Hub on this machine: what strangers load is what lay in the folder."""

from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch.nn.functional import cosine_similarity

from m2c.checkpoints import load_model, load_processor
from m2c.data import scenes
from m2c.data.benchmarks import write_benchmark
from m2c.data.benchmarks.scenes import load_scenes
from m2c.data.image_folder import write_image_folder

from ...hub.test_models import embed
from ...test_checkpoints import features
from .user_code import publish, read_triplets, retrieve, run_card


# What is published where: the kind of folder, and how. Every form is loaded by the visitors below. While it is published, only
# those are loaded for which that is not done in the usual way, as it takes seconds each time.
FORMS = {
    "ana/base": ("base",),
    "ana/full": ("full",),
    "ana/adapter": ("full", "--adapter-only", "--base", "ana/base"),
    "ana/merged": ("full", "--merge"),
    "ana/converted": ("converted", "--private"),
}
UNUSUAL = ("ana/full", "ana/adapter")
COLORS = ("red", "green", "blue")


@pytest.fixture(scope="module")
def datasets(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("datasets")
    return {
        "ana/triplets": write_image_folder(scenes.triplets(6), folder / "triplets"),
        "ana/benchmark": write_benchmark(load_scenes(3), folder / "benchmark"),
    }


@pytest.fixture(scope="module")
def session(client, folders, datasets) -> dict:
    """Publishes everything; in the place of the full model another one was before. Then the owner tries the benchmark."""
    commands = {name: [folders[kind], name, *options] for name, (kind, *options) in FORMS.items()}
    for name, folder in datasets.items():
        commands[name] = [folder, name, "--licence", "apache-2.0", "--source", "Drawn by `m2c.data.scenes`."]
    before = partial(publish, arguments=[folders["base"], "ana/full"], probes=False)
    publishing = [partial(publish, arguments=arguments, probes=name in UNUSUAL) for name, arguments in commands.items()]
    trying = partial(run_card, repo_id="ana/benchmark", repo_type="dataset")
    outcomes = client.session(before, *publishing, trying)
    assert not [outcome for outcome in outcomes if outcome.error or outcome.value.get("code") == 1], outcomes
    return dict(zip(["before", *commands, "tried"], [outcome.value for outcome in outcomes]))


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
def online(visitor, embedding) -> dict[str, dict]:
    """All that a visitor does, in one process."""
    cards = [partial(run_card, repo_id=name) for name in FORMS]
    card = partial(run_card, repo_id="ana/triplets", repo_type="dataset")
    others = [partial(retrieve, repo_id="ana/full"), partial(read_triplets, repo_id="ana/triplets")]
    outcomes = visitor.session(*embedding.values(), *cards, card, *others)
    assert not [outcome for outcome in outcomes if outcome.error], outcomes[0].output
    values = iter([outcome.value for outcome in outcomes])
    return {
        "features": {name: torch.tensor(next(values)) for name in embedding},
        "cards": {name: next(values) for name in (*FORMS, "ana/triplets")},
        "retrieved": next(values),
        "triplets": next(values),
    }


@pytest.fixture(scope="module")
def models(folders) -> dict:
    """Models before they were published, with their processors, by the names that they were given."""
    kinds = {name: folders[kind] for name, (kind, *_) in FORMS.items()} | {"before": folders["base"]}
    return {name: (load_model(str(folder)).eval(), load_processor(str(folder))) for name, folder in kinds.items()}


@pytest.mark.parametrize("name", [*FORMS, "before"])
def test_features_are_those_from_before(models, online, name):
    torch.testing.assert_close(online["features"][name], features(*models[name]), atol=1e-5, rtol=1e-5)


def test_forms_differ_where_they_should(online):
    for name in ("ana/base", "ana/converted", "before"):
        assert (online["features"][name] - online["features"]["ana/full"]).abs().max() > 1e-2


def test_offline_from_the_cache(hub, visitor, embedding, online):
    """With our packages, and nobody is asked."""
    before = len(hub.requests())
    calls = [partial(call, trust_remote_code=False) for call in embedding.values()]
    outcomes = replace(visitor, offline=True, has_our_packages=True).session(*calls)
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
    torch.testing.assert_close(torch.tensor(card["features"]["query"]), query, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(torch.tensor(card["features"]["gallery"]), gallery, atol=1e-5, rtol=1e-4)
    assert card["printed"] == str(cosine_similarity(query, gallery).argsort(descending=True))


def test_the_lines_of_the_card_are_said(said, online):
    for name, card in online["cards"].items():
        assert f'"{name}"' in card["code"] and f"\n\n{card['code']}" in said[name]


@torch.no_grad()
def test_other_libraries_find_the_same(models, online):
    model, processor = models["ana/full"]
    pictures = [Image.new("RGB", (50, 40), color) for color in COLORS]
    query = model.get_composed_features(**processor(images=pictures[0], text="is big", return_tensors="pt")).pooler_output
    gallery = model.get_image_features(**processor(images=pictures, return_tensors="pt")).pooler_output
    for scores in online["retrieved"].values():
        found = torch.tensor([scores[str(index)] for index in range(3)])
        torch.testing.assert_close(found, cosine_similarity(query, gallery), atol=1e-5, rtol=1e-5)


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


def test_no_token_is_ever_said(tokens, said, online):
    assert not any(token in repr(said) + repr(online) for token in tokens.values())
