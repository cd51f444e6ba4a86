"""What is seen after sending; that all is well with what really was sent is seen in test_publication."""

import pytest
import torch

from hub_cards.publishing import Options, publication, publish, sending
from hub_cards.publishing.hub import Present, Published
from m2c.data import scenes
from m2c.data.image_folder import write_image_folder


FEATURES = {"composed": torch.ones(2), "images": torch.ones(2)}


@pytest.fixture
def triplets(tmp_path):
    return write_image_folder(scenes.triplets(3), tmp_path / "triplets")


@pytest.fixture
def publishing(monkeypatch):
    """`publish` with a Hub that is made up: what it holds, and how the model in it behaves."""

    def publish_to(differing_files: list[str], probe_there, probe_here=lambda _: FEATURES, is_new=True) -> None:
        monkeypatch.setattr(sending, "look_up", lambda *_: Present())
        monkeypatch.setattr(sending, "check_card", lambda *_: None)
        monkeypatch.setattr(sending, "send", lambda *_: Published("https://hub/you/model", 40 * "a", is_new))
        monkeypatch.setattr(sending, "differing_files", lambda *_: differing_files)
        monkeypatch.setattr(publication, "probe", lambda name, *_: probe_there() if name == "you/model" else probe_here(name))

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
        ([], cannot_load, "but you/model does not load in a fresh process: OSError: no connection. If that was"),
        ([], lambda: {**FEATURES, "images": torch.zeros(2)}, "but gives other features of images than before"),
    ],
)
def test_what_is_wrong_there(folders, publishing, differing_files, probe_there, message):
    publishing(differing_files, probe_there)
    with pytest.raises(OSError) as raised:
        publish(folders["base"], "you/model", say=lambda _: None)
    assert str(raised.value).startswith(f"https://hub/you/model was published, {message}")


def rows(count: int, **columns) -> dict:
    return {"default": {"train": {"rows": count, "columns": columns}}}


@pytest.mark.parametrize("there", [rows(2), rows(4, image="Image"), rows(3, image="Image", text="Value")])
def test_rows_that_are_other_there(triplets, publishing, monkeypatch, there):
    """Fewer, more, or with other columns."""
    publishing([], None)
    here = rows(3, image="Image")
    monkeypatch.setattr(publication, "probe_rows", lambda name, *_: there if name == "you/triplets" else here)
    with pytest.raises(OSError, match=r"^https://hub/you/model was published, but `datasets` reads {'default': .* and {"):
        publish(triplets, "you/triplets", Options(licence="mit"), say=lambda _: None)
    monkeypatch.setattr(publication, "probe_rows", lambda *_: here)
    assert publish(triplets, "you/triplets", Options(licence="mit"), say=lambda _: None).is_new


def test_what_the_card_counts_must_be_what_is_read(tmp_path, publishing):
    """In a real process, which reads more: what lies below a split is a part of it."""
    publishing(["nothing may get this far"], None)
    folder = write_image_folder(scenes.pairs(2), tmp_path / "pairs")
    write_image_folder(scenes.pairs(1), folder / "more")
    with pytest.raises(
        ValueError, match=r"`datasets` reads {'train': 3} rows of .*pairs, its card counts {'train': 2}; is there"
    ):
        publish(folder, "you/pairs", Options(licence="mit"), say=lambda _: None)


def test_all_is_well(folders, publishing):
    publishing([], lambda: FEATURES)
    said = []
    assert publish(folders["base"], "you/model", say=said.append).revision == 40 * "a"
    assert said[0] == "Loading it in a fresh process ..." and said[1].startswith("For the model you/model:\n")
    assert said[2:4] == ["Sending ...", "Checking revision aaaaaaaa ..."] and len(said) == 5


@pytest.mark.parametrize("form", ["merged", "adapter"])
def test_another_form_must_give_the_features_of_the_folder(folders, publishing, monkeypatch, form):
    """`FEATURES` are those of the folder; what was staged is off by more than another order of sums explains."""
    monkeypatch.setattr(publication, "stage_model", lambda *_: None)
    monkeypatch.setattr(publication, "refuse_problems", lambda *_: None)
    publishing([], lambda: FEATURES, lambda path: {kind: f + 1e-3 * (path != folders["full"]) for kind, f in FEATURES.items()})
    with pytest.raises(
        ValueError, match=f"the {form} form gives other features of composed, images than .*full; do not use it"
    ):
        publish(folders["full"], "you/model", Options(form=form), say=lambda _: None)


@pytest.mark.parametrize("is_new", [True, False])
def test_what_is_there_already_is_no_pull_request(folders, publishing, is_new):
    publishing([], lambda: FEATURES, is_new=is_new)
    said = []
    publish(folders["base"], "you/model", Options(create_pr=True), say=said.append)
    assert ("Once it is merged:" in said[-1]) == is_new and ("All of it is there already." in said) != is_new


def test_sizes(tmp_path):
    for name, size in {"a": 999, "b/c": 1_000, "d": 12_345_678, "e": 1_700_000_000}.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        with open(tmp_path / name, "wb") as file:
            file.truncate(size)
    assert sending.contents(tmp_path).splitlines() == [
        "  a            999 B",
        "  b/c         1.0 kB",
        "  d          12.3 MB",
        "  e           1.7 GB",
        "  4 files     1.7 GB",
    ]
