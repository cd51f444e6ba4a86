"""The picture shows what the log says, whatever state a run has left it in."""

import json
import math
import re
import weakref

import pytest
from matplotlib.figure import Figure
from PIL import Image

from m2c.training.records.curves import draw_curves
from m2c.training.records.log import read_log


LOSSES = [
    {
        "step": step,
        "loss": 9 / step,
        "composing": 5 / step,
        "mapping": 3 / step,
        "soft": 1.0,
        "learning_rate": 1e-4,
        "seconds": 2,
    }
    for step in (2, 4, 6, 8)
]
MEASURED = [
    {"step": step, "validation_recall@1": step / 10, "validation_recall@5": step / 8, "validation_circo_mAP@5": 3.0 * step}
    for step in (4, 8)
]


@pytest.fixture
def draw(tmp_path, monkeypatch):
    """Draws a log and returns the figure as it was saved."""
    figures, save = [], Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda self, *args, **kwargs: (figures.append(self), save(self, *args, **kwargs)))

    def run(text: str) -> Figure:
        (tmp_path / "log.jsonl").write_text(text, encoding="utf-8")
        draw_curves(tmp_path / "log.jsonl", tmp_path / "curves.png")
        with Image.open(tmp_path / "curves.png") as picture:
            assert picture.format == "PNG" and picture.width > 1000 and len(picture.convert("RGB").getcolors(2**24)) > 5
        assert not list(tmp_path.glob("*.partial"))
        return figures[-1]

    return run


def lines(*entries: dict) -> str:
    return "".join(json.dumps(entry) + "\n" for entry in entries)


def curves_of(figure: Figure) -> dict[str, dict[str, list[tuple[float, float]]]]:
    """Points by panel and label; a loss has none, and crosses go by `x`."""
    panels = {}
    for axis in figure.axes:
        panel = panels[axis.get_title(loc="left")] = {}
        for line in axis.lines:
            label = "x" if line.get_marker() == "x" else re.sub("^_.*", "", line.get_label())
            panel.setdefault(label, []).extend(zip(*map(list, line.get_data())))
    return panels


def test_losses_learning_rate_and_measurements_have_panels_of_their_own(draw):
    panels = curves_of(draw(lines(*LOSSES[:2], MEASURED[0], *LOSSES[2:], MEASURED[1])))
    names = ["loss", "composing", "mapping", "soft", "learning rate", "validation recall", "validation circo mAP@5"]
    assert list(panels) == names
    assert panels["composing"][""] == [(entry["step"], entry["composing"]) for entry in LOSSES]
    assert panels["validation recall"]["@1"] == [(4, 0.4), (8, 0.8)]
    assert panels["validation recall"]["@5"] == [(4, 0.5), (8, 1.0)]
    assert panels["validation circo mAP@5"]["@5"] == [(4, 12.0), (8, 24.0)]


def test_panels_share_their_steps(draw):
    axes = draw(lines(*LOSSES, *MEASURED)).axes
    assert len({axis.get_xlim() for axis in axes}) == 1 and axes[0].get_xlim()[0] == 0 and 8 < axes[0].get_xlim()[1] < 9


def test_what_is_not_finite_breaks_the_curve_and_is_marked(draw):
    values = [3.0, None, 2.0, math.inf, None, 1.0]
    panels = curves_of(draw(lines(*({"step": step, "loss": value} for step, value in enumerate(values, 1)))))
    drawn = panels["loss"][""]
    assert [step for step, value in drawn if not math.isnan(value)] == [1, 3, 6]
    assert [step for step, value in drawn if math.isnan(value)] == [2, 4, 5]
    assert [step for step, _ in panels["loss"]["x"]] == [2, 4, 5]


@pytest.mark.parametrize("value", [1.0, 0.0, -1e30, math.nan, math.inf])
def test_a_single_line(draw, value):
    panels = curves_of(draw(lines({"step": 1, "loss": value, "learning_rate": 1e-6})))
    assert list(panels) == ["loss", "learning rate"] and [step for step, _ in panels["loss"][""]] == [1]


@pytest.mark.parametrize("text", ["", "\n", '{"step": 1, "lo', "[]\n3\nnull\n"])
def test_a_log_without_entries(draw, text):
    figure = draw(text)
    assert not figure.axes and figure.texts[0].get_text() == "nothing was logged yet"


def test_a_run_that_has_no_log_yet(tmp_path):
    draw_curves(tmp_path / "log.jsonl", tmp_path / "curves.png")
    assert (tmp_path / "curves.png").exists() and read_log(tmp_path / "log.jsonl") == []


@pytest.mark.parametrize("end", ['{"step": 10, "loss": 1', "{", '{"loss": 4.0}', '"step"', "\0\0\0", "\ufffd\n"])
def test_what_a_killed_run_left_half_written_is_left_out(draw, end):
    text = lines(*LOSSES)
    assert curves_of(draw(text + end)) == curves_of(draw(text))


def test_a_log_cut_within_a_character(tmp_path):
    (tmp_path / "log.jsonl").write_bytes(lines(*LOSSES).encode() + '{"step": 10, "é'.encode()[:-1])
    assert read_log(tmp_path / "log.jsonl") == LOSSES


def test_a_long_run_keeps_no_figures(tmp_path, monkeypatch):
    figures, save = [], Figure.savefig
    monkeypatch.setattr(
        Figure, "savefig", lambda self, *args, **kwargs: (figures.append(weakref.ref(self)), save(self, *args, **kwargs))
    )
    draw_curves(tmp_path / "log.jsonl", tmp_path / "curves.png")
    assert [figure() for figure in figures] == [None]


def test_an_earlier_picture_stays_until_the_new_one_is_complete(draw, tmp_path, monkeypatch):
    draw(lines(*LOSSES))
    before = (tmp_path / "curves.png").read_bytes()

    def full(self, path, **kwargs):
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Figure, "savefig", full)
    with pytest.raises(OSError, match="No space left"):
        draw_curves(tmp_path / "log.jsonl", tmp_path / "curves.png")
    assert (tmp_path / "curves.png").read_bytes() == before
