"""The examples in the help of the commands run as they stand, on what the quickstart leaves."""

import re
import shlex
import shutil
from pathlib import Path

import pytest
from huggingface_hub import ModelCard
from PIL import Image

from hub_cards import write_card, write_results
from m2c.commands import sharing

from ...hub.fresh_process import HubClient


CLI = "from m2c.cli import app; app()"


@pytest.fixture(scope="module")
def user(hub, tmp_path_factory) -> HubClient:
    """Somebody by the name that the examples use."""
    return HubClient(hub, tmp_path_factory.mktemp("you"), hub.add_user("you"))


@pytest.fixture(scope="module")
def model(user, folders, scenes_record, record_of_training, write_json) -> Path:
    """`m2c-quickstart/model` where they are."""
    model = shutil.copytree(folders["full"], user.home / "m2c-quickstart" / "model")
    stage1 = record_of_training(model="scenes", dataset="scenes")
    write_json(model / "training.json", record_of_training(stage1, stage=2, model="stage1", dataset="scenes"))
    for name in ("run.json", "log.jsonl"):
        write_json(model / name, {"output_dir": str(model)})
    for name in ("retrieval.png", "learning_curves.png"):
        Image.new("RGB", (30, 20), "green").save(model / name)
    write_results(model, [scenes_record])
    write_card(model)
    return model


def example(command) -> list[str]:
    """Of the help of a command: the words behind `m2c`."""
    (line,) = re.findall("^ *For example: m2c (.*)$", command.__doc__, re.MULTILINE)
    return shlex.split(line.partition("; then: ")[0])


@pytest.mark.slow
def test_publish(hub, user, model):
    """Drawn scenes need no licence to be named."""
    done = user.python("-c", CLI, *example(sharing.publish))
    assert done.returncode == 0, done.stderr
    name = example(sharing.publish)[-1]
    files = hub.repository(name).files()
    card = ModelCard(files["README.md"].decode())
    assert f"Published: {hub.url}/{name}\n" in done.stdout and f'path = "{name}"' in done.stdout
    assert {"retrieval.png", "learning_curves.png", "evaluation/scenes-test.json"} < files.keys() and "run.json" not in files
    assert card.data.license == "apache-2.0" and "| licence of the pictures | `apache-2.0` |" in card.text
    assert user.token not in done.stdout + done.stderr


@pytest.mark.slow
def test_publish_space(user, model):
    """What the example goes on with, `python space/app.py`, is seen in a browser elsewhere."""
    pytest.importorskip("gradio")
    done = user.python("-c", CLI, *example(sharing.publish_space))
    assert done.returncode == 0, done.stderr
    assert "To try it: python space/app.py" in done.stdout and (user.home / "space" / "app.py").is_file()
