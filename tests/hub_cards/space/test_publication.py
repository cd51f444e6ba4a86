"""`m2c publish-space` against a Hub on this machine."""

import json
import shutil
from dataclasses import asdict, replace
from functools import partial
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path

import pytest
from huggingface_hub import SpaceCard
from PIL import Image
from typer.testing import CliRunner

from hub_cards.publishing import sending
from hub_cards.space import publication
from m2c.checkpoints import set_base
from m2c.cli import app

from ...hub.faults import CorruptUpload, DropAnswer, DropUpload, Refuse, Stall
from ...hub.test_faults import COMMIT, UPLOAD
from ...hub.user_code import clear_faults, fetch, plan_fault, push


CLI = "from m2c.cli import app; app()"


@pytest.fixture
def pictures(tmp_path) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for color in ("red", "green", "blue"):
        Image.new("RGB", (40, 30), color).save(folder / f"{color}.png")
    (folder / "examples.jsonl").write_text('{"file_name": "red.png", "modification": "is blue"}\n')
    return folder


def search(repo_id, copy):
    """What the page of a Space answers, from a download of it."""
    import shutil
    import sys
    from pathlib import Path

    from huggingface_hub import snapshot_download

    shutil.copytree(snapshot_download(repo_id, repo_type="space"), copy)
    sys.path.insert(0, copy)
    from search import load_searcher, read_settings

    folder = Path(copy)
    settings = read_settings(folder)
    searcher = load_searcher(folder, settings["model"], settings["revision"])
    (example,) = settings["examples"]
    answers = searcher(folder / "gallery" / example["reference"], example["modification"])
    return [(answer.picture.name, answer.score) for answer in answers]


@pytest.mark.slow
def test_a_space_keeps_to_the_model_it_was_made_with(
    hub, token, client, stranger, published, folders, ranking_in, pictures, tmp_path
):
    """From the command to answers on somebody's machine, also after another model took the place of the one it names."""
    pytest.importorskip("gradio")
    model = shutil.copytree(published["full"], tmp_path / "full")
    set_base(model, "ana/full")
    commit = hub.publish("ana/full", {path.name: path.read_bytes() for path in model.iterdir() if path.is_file()})
    arguments = ["ana/full", "ana/search", "--gallery", str(pictures), "--licence", "cc-by-4.0"]
    done = client.python("-c", CLI, "publish-space", *arguments)
    assert done.returncode == 0, done.stderr
    assert f"{hub.url}/spaces/ana/search" in done.stdout and "gallery.safetensors" in done.stdout
    assert "gallery.safetensors: 100%" in done.stderr and token not in done.stdout + done.stderr

    sent = hub.repository("ana/search", "space").files()
    settings, card = json.loads(sent["settings.json"]), SpaceCard(sent["README.md"].decode())
    assert settings["model"] == "ana/full" and settings["revision"] == commit.oid
    assert card.data.models == ["ana/full"] and card.data.license == "cc-by-4.0" and card.data.sdk == "gradio"
    assert sum(name.startswith("gallery/") for name in sent) == 3 and not hub.repository("ana/search", "space").private
    assert not any(token.encode() in content for content in sent.values())
    digests = {name: sha256(content).hexdigest() for name, content in sent.items() if name != ".gitattributes"}
    assert stranger.run(fetch, repo_id="ana/search", repo_type="space") == digests

    client.run(push, folder=folders["base"], repo_id="ana/full", delete_patterns="*")
    copy, example = tmp_path / "copy", settings["examples"][0]
    answers = replace(stranger, has_our_packages=False).run(search, repo_id="ana/search", copy=copy)
    ranking = ranking_in(copy / "gallery")(copy / "gallery" / example["reference"], example["modification"])
    expected = {name: score for name, score in ranking if name != example["reference"]}
    assert [name for name, _ in answers] == list(expected)
    assert [score for _, score in answers] == pytest.approx(list(expected.values()), abs=1e-5)


@pytest.fixture
def command(monkeypatch):
    """`m2c publish-space` up to the Hub, in this process. Instead of a Space it writes one file, which cannot be run."""

    def write(model, gallery, folder):
        (folder / "README.md").write_text("---\nlicense: mit\n---\n")

    def send(*arguments, **options):
        raise AssertionError("something was sent")

    monkeypatch.setattr(publication, "write_space", write)
    monkeypatch.setattr(publication, "try_out", lambda folder: None)
    monkeypatch.setattr(sending, "look_up", lambda destination: sending.Present())
    monkeypatch.setattr(sending, "check_card", lambda *_: None)
    monkeypatch.setattr(sending, "send", send)
    return lambda *arguments: CliRunner().invoke(app, ["publish-space", *map(str, arguments)])


def test_a_dry_run_sends_nothing(command):
    done = command("you/full", "you/search", "--dry-run")
    assert done.exit_code == 0, done.output
    assert "README.md" in done.output and "This was a dry run: nothing was sent." in done.output


def test_a_folder_to_try(command, tmp_path):
    done = command("you/full", "--output", tmp_path / "space")
    assert done.exit_code == 0, done.output
    assert (tmp_path / "space" / "README.md").is_file() and f"python {tmp_path / 'space' / 'app.py'}" in done.output
    again = command("you/full", "--output", tmp_path / "space")
    assert again.exit_code == 1 and "exists already" in again.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["you/full"], "name either a repository of the Hub, or a folder with --output"),
        (["you/full", "you/search", "--output", "space"], "name either a repository of the Hub, or a folder with --output"),
        (["you/full", "search"], "'search' is no name of a Space; write it as user/name"),
        ([".", "you/search"], "publish that with m2c publish, and name its repository"),
        (["you/full", "you/search", "--gallery", "."], "have no licence; name one with --licence"),
        (["you/full", "you/search", "--gallery", "nowhere"], "is no folder"),
    ],
)
def test_wrong_arguments(command, arguments, message):
    done = command(*arguments)
    assert done.exit_code == 1 and message in " ".join(done.output.split()), done.output


def test_gradio_is_asked_for(command, monkeypatch):
    def write(model, gallery, folder):
        version("gradio of another time")

    monkeypatch.setattr(publication, "write_space", write)
    done = command("you/full", "you/search")
    assert done.exit_code == 1 and "pip install gradio" in done.output


def test_a_token_is_not_said_again(command, monkeypatch):
    token = "hf_" + 34 * "x"

    def write(model, gallery, folder):
        raise OSError(f"{model} refuses {token}")

    monkeypatch.setattr(publication, "write_space", write)
    done = command("you/full", token)
    assert done.exit_code == 1 and "'***' is no name of a Space" in done.output and token not in done.output
    done = command("you/full", "you/search")
    assert done.exit_code == 1 and "you/full refuses ***" in done.output and token not in done.output


def publish_small(name, patience=100):
    """`m2c publish-space` of two files that are no page, which takes no time. How it ends, and all that it says."""
    from typer.testing import CliRunner

    from hub_cards.publishing import hub
    from hub_cards.space import publication
    from m2c.cli import app

    def write(model, gallery, folder):
        (folder / "README.md").write_text("---\nsdk: gradio\nlicense: apache-2.0\ntags: [m2c]\n---\n")
        (folder / "gallery.safetensors").write_bytes(b"\2\0\0\0\0\0\0\0{}")

    publication.write_space, publication.try_out, hub.PATIENCE = write, lambda folder: None, patience
    done = CliRunner().invoke(app, ["publish-space", "ana/model", name])
    return {"code": done.exit_code, "said": done.output}


FAULTS = {
    "unknown-token": ("POST", Refuse(401), "Log in with `hf auth login`"),
    "may-not-write": (COMMIT, Refuse(403), "your token may not do that"),
    "vanished": (COMMIT, Refuse(404, code="RepoNotFound"), "there is no such repository"),
    "rate-limit": (COMMIT, Refuse(429, retry_after=7), "the Hub asks to wait"),
    "down": (COMMIT, Refuse(500), "Run the same command again"),
    "lost": (UPLOAD, DropUpload(after_bytes=3), "Run the same command again"),
    "silent": (UPLOAD, Stall(1000), "Run the same command again"),
    "silent-at-the-commit": (COMMIT, Stall(1000), "Run the same command again"),
    "wrong-checksum": (UPLOAD, CorruptUpload(), "Run the same command again"),
    "answer-lost": (COMMIT, DropAnswer(), "Published: "),
}


def test_a_space_is_the_old_one_or_the_new_one(hub, token, client):
    """Whatever goes wrong; the same command completes. The first time, and over what was there."""
    old, steps = {"README.md": b"---\nsdk: gradio\ntags: [m2c]\n---\n", "app.py": b"old"}, []
    for name, (requests, effect, _) in FAULTS.items():
        hub.publish(f"ana/next-{name}", old, "space")
        for age in ("first", "next"):
            effect_by_name = {"kind": type(effect).__name__, **asdict(effect)}
            fault = partial(plan_fault, requests=requests, effect=effect_by_name, times=None)
            publishing = partial(publish_small, name=f"ana/{age}-{name}")
            impatient = partial(publishing, patience=0.3 if isinstance(effect, Stall) else 100)
            steps += [fault, impatient, partial(clear_faults), publishing]
    # Of its requests the client then says all that it says of any.
    outcomes = replace(client, variables={"HF_DEBUG": "1"}).session(*steps)
    assert not [outcome for outcome in outcomes if outcome.error] and token not in repr(outcomes)
    for index, name in enumerate(f"{age}-{name}" for name in FAULTS for age in ("first", "next")):
        _, failed, _, repeated = (outcome.value for outcome in outcomes[4 * index : 4 * index + 4])
        said, repository = FAULTS[name.partition("-")[2]][-1], hub.repository(f"ana/{name}", "space")
        assert said in failed["said"] and (failed["code"] == 0) == (said == "Published: "), failed["said"]
        # The first attempt left the old one, or all of the new one.
        assert ("is there already" in repeated["said"]) == (said == "Published: ")
        assert repeated["code"] == 0 and f"Published: {hub.url}/spaces/ana/{name}\n" in repeated["said"]
        assert repository.files().keys() == {".gitattributes", "README.md", "gallery.safetensors"}
        assert len(repository.commits) == (3 if name.startswith("next") else 2)
