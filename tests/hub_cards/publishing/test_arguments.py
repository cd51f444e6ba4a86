"""What is refused before the Hub is asked for anything."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from hub_cards import write_card, write_dataset_card
from hub_cards.publishing import Options, Results, publication, publish
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
        (
            "triplets",
            "ana/data",
            Options(form="merged"),
            "--adapter-only, --merge, --base, --results and --pictures-licence are",
        ),
        ("triplets", "ana/data", Options(results=Results((Path("x"),))), "--results and --pictures-licence are of models"),
        ("triplets", "ana/data", Options(pictures_licence="mit"), "--results and --pictures-licence are of models"),
        ("empty", "ana/data", Options(licence="mit"), "holds no data set"),
        ("triplets", "ana/data", Options(), "has no licence; name one with --licence"),
        ("base", "ana/model", Options(form="adapter", base="ana/base"), "has no adapter of stage 2"),
    ],
)
def test_refused(folders, data, tmp_path, folder, repo_id, options, message):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError) as raised:
        publish(folders.get(folder, tmp_path / folder), repo_id, options, say=lambda _: None)
    assert message in str(raised.value)


@pytest.mark.parametrize("kind", ["model", "data set"])
def test_a_card_that_somebody_wrote_is_not_replaced_unasked(copy_of, data, monkeypatch, kind):
    """Neither is one that was generated and changed since; and it stays in the folder in any case."""
    folder, licence = {"model": (copy_of("base"), None), "data set": (data, "mit")}[kind]
    write = {"model": write_card, "data set": write_dataset_card}[kind]
    generated = write(folder).read_text()
    monkeypatch.setattr(publication, "probe", lambda *_: {})
    monkeypatch.setattr(publication, "probe_rows", lambda *_: {"default": {"train": {"rows": 2}}})
    sent = []
    monkeypatch.setattr(publication, "send_checked", lambda staged, *_: sent.append((staged / "README.md").read_text()))
    for card in ("# My model\n", generated.replace("\n## ", "\n## My own words\n\n## ", 1)):
        (folder / "README.md").write_text(card)
        with pytest.raises(ValueError, match=r"README.md was written or changed by hand, .* Move it away, or add --replace"):
            publish(folder, "ana/some", Options(licence=licence), say=lambda _: None)
        assert not sent
        publish(folder, "ana/some", Options(licence=licence, replace=True), say=lambda _: None)
        assert 'ana/some"' in sent.pop() and (folder / "README.md").read_text() == card
    (folder / "README.md").write_text(generated)
    publish(folder, "ana/some", Options(licence=licence), say=lambda _: None)
    assert 'ana/some"' in sent.pop()


def test_a_token_is_not_said_again():
    """Of whoever puts it where the name of the repository goes."""
    token = "hf_" + 34 * "x"
    done = CliRunner().invoke(app, ["publish", ".", token])
    assert done.exit_code == 1 and "'***' lacks the user or organisation" in done.stderr and token not in done.output


@pytest.mark.parametrize("arguments", [["--results-dataset", "cirr"], ["--results", "nowhere"]])
def test_results_that_cannot_be(folders, arguments):
    done = CliRunner().invoke(app, ["publish", str(folders["base"]), "ana/model", *arguments])
    assert done.exit_code == 1
    assert (
        "--results-dataset takes NAME=REPOSITORY, not 'cirr'" in done.stderr
        or "there is no nowhere; m2c evaluate" in done.stderr
    )


def test_a_damaged_record_is_named_where_it_lies(copy_of):
    """And not where its copy lay for a moment."""
    folder = copy_of("base")
    (folder / "training.json").write_text("{")
    with pytest.raises(ValueError, match=f"^{folder}/training.json is no complete JSON"):
        publish(folder, "ana/model", say=lambda _: None)


def test_two_forms_at_once():
    done = CliRunner().invoke(app, ["publish", "folder", "ana/model", "--adapter-only", "--merge"])
    assert done.exit_code == 1 and done.stderr == "error: --adapter-only and --merge exclude each other\n"


def test_offline(folders, monkeypatch):
    """As every test is without a Hub."""
    monkeypatch.setattr(publication, "probe", lambda folder: {})
    with pytest.raises(OSError, match=r"ana/model could not be published: HF_HUB_OFFLINE is set\. Unset it"):
        publish(folders["base"], "ana/model", say=lambda _: None)
