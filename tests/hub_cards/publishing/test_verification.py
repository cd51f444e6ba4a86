"""What is seen after sending; that all is well with what really was sent is seen in test_publish."""

from importlib import import_module

import pytest
import torch

from hub_cards.publishing import publish
from hub_cards.publishing.hub import Published


FEATURES = {"composed": torch.ones(2), "images": torch.ones(2)}


@pytest.fixture
def publishing(monkeypatch):
    """`publish` with a Hub that is made up: what it holds, and how the model in it behaves."""

    def publish_to(differing_files: list[str], probe_there) -> None:
        module = import_module("hub_cards.publishing.publish")
        monkeypatch.setattr(module, "send", lambda *_: Published("https://hub/you/model", 40 * "a", True))
        monkeypatch.setattr(module, "differing_files", lambda *_: differing_files)
        monkeypatch.setattr(module, "probe", lambda name, *_: probe_there() if name == "you/model" else FEATURES)

    return publish_to


def cannot_load():
    raise ValueError("you/model does not load in a fresh process: OSError: no connection")


@pytest.mark.parametrize(
    ("differing_files", "probe_there", "message"),
    [
        (
            ["config.json", "x.py"],
            lambda: FEATURES,
            "but differs in config.json, x.py. Run the same command again",
        ),
        ([], cannot_load, "but you/model does not load in a fresh process: OSError: no connection. If that was the connection"),
        ([], lambda: {**FEATURES, "images": torch.zeros(2)}, "but gives other features of images than before"),
    ],
)
def test_what_is_wrong_there(folders, publishing, differing_files, probe_there, message):
    publishing(differing_files, probe_there)
    with pytest.raises(OSError) as raised:
        publish(folders["base"], "you/model", say=lambda _: None)
    assert str(raised.value).startswith(f"https://hub/you/model was published, {message}")


def test_all_is_well(folders, publishing):
    publishing([], lambda: FEATURES)
    said = []
    assert publish(folders["base"], "you/model", say=said.append).revision == 40 * "a"
    assert said[1:4] == ["Loading it in a fresh process ...", "Sending ...", "Checking revision aaaaaaaa ..."]


def test_sizes(tmp_path):
    contents = import_module("hub_cards.publishing.publish").contents
    for name, size in {"a": 999, "b/c": 1_000, "d": 12_345_678, "e": 1_700_000_000}.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        with open(tmp_path / name, "wb") as file:
            file.truncate(size)
    assert contents(tmp_path).splitlines() == [
        "  a            999 B",
        "  b/c         1.0 kB",
        "  d          12.3 MB",
        "  e           1.7 GB",
        "  4 files     1.7 GB",
    ]
