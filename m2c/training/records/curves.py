"""The log of a run as a picture: learning curves in small multiples."""

import gc
import math
from itertools import cycle
from pathlib import Path
from types import NoneType

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from m2c.whole_files import whole_file

from .log import read_log


COLUMNS = 3
WIDTH, HEIGHT = 4.3, 2.9  # of a panel, in inches
INK, MUTED, GRID, WRONG = "#22262a", "#7a8288", "#e6e9ec", "#d9534f"
COLORS = ("#1f6fb2", "#1a9850", "#e08214", "#7b5aa6", "#b2506e", "#4d9ea3")


def draw_curves(log_path: Path, png_path: Path) -> None:
    """Draws the loss, its terms, the learning rate, and what was validated, over the steps of a run, each in a panel.

    Figures that differ only in their k, such as `validation_recall@1` and `validation_recall@5`, share one. Where a value is
    not finite its curve is broken, and a red cross marks the step.

    Args:
        log_path: of `log.jsonl`; the run may still be writing it.
        png_path: where to write the picture, which replaces an earlier one when it is complete.

    Raises:
        OSError: if the log cannot be read, or the picture not written.
    """
    figure = _figure_of(read_log(log_path))
    with whole_file(png_path) as partial:
        figure.savefig(partial, format="png")
    del figure
    gc.collect()  # its parts refer to each other: in a long run the remains of many figures would pile up


def _figure_of(entries: list[dict]) -> Figure:
    panels = _panels(entries)
    rows = max(1, math.ceil(len(panels) / COLUMNS))
    width, height = WIDTH * COLUMNS, HEIGHT * rows + 0.2
    figure = Figure(figsize=(width, height), dpi=110, facecolor="white")
    grid = figure.add_gridspec(
        rows, COLUMNS, left=0.55 / width, right=1 - 0.2 / width, bottom=0.6 / height, top=1 - 0.45 / height, wspace=0.18,
        hspace=0.42,
    )  # fmt: skip
    for index, (title, curves) in enumerate(panels.items()):
        axis = figure.add_subplot(grid[index])
        _draw(axis, title, curves)
        axis.set_xlim(0, 1.02 * max(1, *(entry["step"] for entry in entries)))
        if index + COLUMNS >= len(panels):
            axis.set_xlabel("step", fontsize=9.5, color=MUTED)
    if not panels:
        figure.text(0.5, 0.5, "nothing was logged yet", ha="center", va="center", fontsize=12, color=MUTED)
    return figure


def _panels(entries: list[dict]) -> dict[str, dict[str, list[tuple[int, float]]]]:
    """Points (step, value) by panel and curve, in the order of the log, with validation last."""
    curves: dict[str, list[tuple[int, float]]] = {}
    for entry in entries:
        for name, value in entry.items():
            if name not in ("step", "seconds") and isinstance(value, (int, float, NoneType)):
                curves.setdefault(name, []).append((entry["step"], math.nan if value is None else value))
    panels: dict[str, dict[str, list[tuple[int, float]]]] = {}
    for name in sorted(curves, key=lambda name: name.startswith("validation_")):
        title, at, k = name.replace("_", " ").partition("@")
        panels.setdefault(title, {})[at + k] = curves[name]
    return panels


def _draw(axis: Axes, title: str, curves: dict[str, list[tuple[int, float]]]) -> None:
    for (name, points), color in zip(curves.items(), cycle(COLORS)):
        steps = [step for step, _ in points]
        values = [value if math.isfinite(value) else math.nan for _, value in points]
        # Dots show what no line can: a single point, or one between gaps.
        size = 3 if len(points) <= 60 else 1.4
        axis.plot(steps, values, ".-", color=color, linewidth=1.4, markersize=size, label=name)
        broken = [step for step, value in points if not math.isfinite(value)]
        axis.plot(broken, [0.03] * len(broken), "x", color=WRONG, transform=axis.get_xaxis_transform(), markersize=6)
    if len(curves) > 1:
        axis.legend(
            loc="lower right", bbox_to_anchor=(1.03, 0.99), ncols=len(curves), fontsize=10.5, labelcolor="linecolor",
            frameon=False, handlelength=0, handletextpad=0, markerscale=0, columnspacing=0.9,
        )  # fmt: skip
    else:
        title += name
        axis.set_title(f"{points[-1][1]:.4g}", loc="right", fontsize=10.5, color=MUTED, pad=8)
    axis.set_title(title, loc="left", fontsize=11.5, color=INK, pad=8)
    axis.grid(color=GRID, linewidth=0.8)
    axis.set_axisbelow(True)
    axis.yaxis.set_major_formatter("{x:g}")
    axis.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10], integer=True))
    axis.tick_params(colors=MUTED, labelsize=8.5, length=0)
    axis.spines[["top", "right"]].set_visible(False)
    axis.spines[["left", "bottom"]].set_color(GRID)
