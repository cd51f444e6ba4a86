"""What is refused before the Hub is asked for anything."""

import json
from importlib import import_module

import pytest
from typer.testing import CliRunner

from hub_cards.publishing import Options, publish
from m2c.cli import app
from m2c.data import scenes
from m2c.data.image_folder import write_image_folder


@pytest.fixture
def data(tmp_path):
    return write_image_folder(scenes.triplets(2), tmp_path / "triplets")


@pytest.mark.parametrize(
    ("folder", "repo_id", "options", "message"),
    [
        ("nothing", "ana/model", Options(), "is no folder; publish the output folder of a training, or of a data set"),
        ("base", "model", Options(), "'model' lacks the user or organisation; write it as user/model"),
        ("base", "ana/mo del", Options(), "'ana/mo del' is no name of a repository: "),
        ("base", "ana/model", Options(source="Drawn."), "--source is of data sets"),
        ("base", "ana/model", Options(base="ana/base"), "--base goes with --adapter-only"),
        ("full", "ana/model", Options(form="merged", base="ana/base"), "--base goes with --adapter-only"),
        ("triplets", "ana/data", Options(form="merged"), "--adapter-only, --merge and --base are of models"),
        ("empty", "ana/data", Options(), "holds no data set"),
        ("triplets", "ana/data", Options(), "has no licence; name one with --licence"),
        ("base", "ana/model", Options(form="adapter", base="ana/base"), "has no adapter of stage 2"),
    ],
)
def test_refused(folders, data, tmp_path, folder, repo_id, options, message):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError) as raised:
        publish(folders.get(folder, tmp_path / folder), repo_id, options, say=lambda _: None)
    assert message in str(raised.value)


def test_every_problem_on_a_line_of_its_own(copy_of):
    folder = copy_of("base")
    (folder / "old.bin").write_bytes(b"\x80\x02pickle")
    (folder / "extra.json").write_text(json.dumps({"data": "/home/me/pictures/cats"}))
    done = CliRunner().invoke(app, ["publish", str(folder), "ana/model"])
    first, *problems = done.stderr.strip().splitlines()
    assert done.exit_code == 1 and first == f"error: {folder} must not be published as it is:"
    assert [line.split()[:2] for line in problems] == [["-", "extra.json"], ["-", "old.bin"]]


def test_two_forms_at_once():
    done = CliRunner().invoke(app, ["publish", "folder", "ana/model", "--adapter-only", "--merge"])
    assert done.exit_code == 1 and done.stderr == "error: --adapter-only and --merge exclude each other\n"


def test_offline(folders, monkeypatch):
    """As every test is without a Hub."""
    monkeypatch.setattr(import_module("hub_cards.publishing.publish"), "probe", lambda folder: {})
    with pytest.raises(OSError, match=r"ana/model could not be published: HF_HUB_OFFLINE is set\. Unset it"):
        publish(folders["base"], "ana/model", say=lambda _: None)
