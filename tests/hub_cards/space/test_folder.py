"""What the folder of a Space holds."""

import json
import re
import shutil
import sys
from importlib.metadata import version

import pytest
import torch
from huggingface_hub import SpaceCard
from huggingface_hub.errors import HTTPError
from PIL import Image
from safetensors.torch import load_file
from torch.nn.functional import normalize

from hub_cards.publishing.checks import find_problems
from hub_cards.space import folder, publication, read_gallery
from m2c.data.scenes import composed_retrieval

from ...hub.cards import validate


def test_content(space):
    names = {"README.md", "app.py", "gallery", "gallery.safetensors", "requirements.txt", "search.py", "settings.json"}
    assert {path.name for path in space.iterdir()} == names
    assert len(list((space / "gallery").iterdir())) == 120
    for code in ("app.py", "search.py"):
        imported = re.findall(r"^(?:import|from) (\w+)", (space / code).read_text(), re.MULTILINE)
        assert not {"m2c", "modeling_m2c", "processing_m2c", "hub_cards"} & set(imported)


@torch.no_grad()
def test_features_are_those_of_the_pictures_in_the_folder(space, parts):
    model, processor = parts
    features = load_file(space / "gallery.safetensors")
    pictures = sorted((space / "gallery").iterdir())
    assert sorted(features) == [picture.name for picture in pictures]
    direct = model.get_image_features(**processor(images=pictures, return_tensors="pt")).pooler_output
    stored = torch.stack([features[picture.name] for picture in pictures])
    torch.testing.assert_close(stored, normalize(direct, dim=-1), atol=1e-5, rtol=1e-5)


def test_settings_name_the_model_and_the_examples(space, folders):
    settings = json.loads((space / "settings.json").read_text())
    assert settings["model"] == str(folders["full"]) and settings["revision"] is None
    data = composed_retrieval(20)
    for example, query in zip(settings["examples"], data["queries"], strict=False):
        reference = data["gallery"][query["reference_id"]]["image"]
        assert example["modification"] == query["modification"]
        with Image.open(space / "gallery" / example["reference"]) as stored:
            assert stored.tobytes() == reference.tobytes()


def test_the_card_says_how_the_page_runs(space):
    card = SpaceCard.load(space / "README.md")
    assert card.data.to_dict() == {
        "title": "Search with a picture and words",
        "sdk": "gradio",
        "sdk_version": version("gradio"),
        "python_version": f"{sys.version_info.major}.{sys.version_info.minor}",
        "app_file": "app.py",
        "license": "apache-2.0",
        "tags": ["composed-image-retrieval", "m2c"],
        "emoji": "🔎",
        "colorFrom": "indigo",
        "colorTo": "pink",
    }
    assert validate((space / "README.md").read_text(), "space") == ([], [])
    # The folder's name, and not where it lies.
    assert "| retriever | `full` |" in card.text and "120 pictures, licence `apache-2.0`" in card.text
    assert f"gradio=={version('gradio')}" in card.text and not re.search(r"/\w+/full", card.text)


def test_requirements_are_what_is_installed_here(space):
    rows = dict(line.split("==") for line in (space / "requirements.txt").read_text().splitlines())
    assert rows.keys() == {"torch", "transformers", "peft", "safetensors", "pillow"}
    assert all(version(name).startswith(row) and "+" not in row for name, row in rows.items())


def test_what_runs_here_only_is_not_published(space):
    """The place of the model is the one thing in the folder that others must not see."""
    (problem,) = find_problems(space, "apache-2.0")
    assert problem.startswith("settings.json names a path")


def test_one_commit_encodes_the_gallery_and_is_loaded(folders, space, tmp_path, monkeypatch):
    """Nothing but that commit is asked of the Hub, where another one may be published at any time."""
    commit, made = 40 * "a", tmp_path / "space"
    place = shutil.copytree(folders["full"], tmp_path / commit)
    monkeypatch.setattr(folder, "snapshot_download", lambda model: str(place))
    made.mkdir()
    folder.write_space("you/full", read_gallery("scenes", None), made)
    settings = json.loads((made / "settings.json").read_text())
    assert (settings["model"], settings["revision"]) == ("you/full", commit)
    assert (made / "gallery.safetensors").read_bytes() == (space / "gallery.safetensors").read_bytes()
    assert str(tmp_path) not in "".join(path.read_text() for path in made.glob("*.[jmt]*"))


def test_a_model_that_the_hub_does_not_give(tmp_path, monkeypatch):
    def download(model):
        raise HTTPError("Server disconnected without sending a response.")

    monkeypatch.setattr(folder, "snapshot_download", download)
    with pytest.raises(OSError, match=r"you/full could not be fetched: the Hub failed .*Run the same command again"):
        folder.write_space("you/full", read_gallery("scenes", None), tmp_path)


def test_a_plain_clip_is_refused(tmp_path):
    with pytest.raises(ValueError, match="a plain CLIP, which composes nothing"):
        folder.write_space("scenes", read_gallery("scenes", None), tmp_path)
    assert not list(tmp_path.iterdir())


def test_an_adapter_alone_is_refused(folders, tmp_path, monkeypatch):
    """The Hub has no config.json of it: it would follow its base, whatever becomes of that."""
    pytest.importorskip("gradio")
    monkeypatch.setattr(folder, "snapshot_download", lambda model: str(folders["adapter"]))
    with pytest.raises(ValueError, match="'you/adapter' is an adapter alone"):
        folder.write_space("you/adapter", read_gallery("scenes", None), tmp_path)


def test_a_page_that_does_not_run_is_not_written(folders, tmp_path, monkeypatch):
    """What a stranger's process says of it is passed on."""
    pytest.importorskip("gradio")

    def write_broken(model, gallery, space):
        (space / "app.py").write_text("raise RuntimeError('a token hf_' + 'a1' * 17)")

    monkeypatch.setattr(publication, "write_space", write_broken)
    with pytest.raises(ValueError, match="the Space does not run: RuntimeError: a token") as failure:
        publication.make_space(str(folders["full"]), read_gallery("scenes", None), tmp_path / "space", say=lambda _: None)
    assert "hf_a1" not in str(failure.value) and not (tmp_path / "space").exists()
