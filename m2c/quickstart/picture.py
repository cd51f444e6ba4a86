"""`retrieval.png`: queries with the answers of the composed retriever."""

import textwrap
from pathlib import Path

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from m2c.evaluation.scenes_benchmark import ScenesBenchmark


ROWS = 8
ANSWERS = 6
TEXT_WIDTH = 2.1  # in pictures
INK, MUTED, RIGHT, WRONG = "#22262a", "#7a8288", "#1a9850", "#d9534f"


def draw_retrieval(path: Path, benchmark: ScenesBenchmark, queries: torch.Tensor) -> None:
    """Draws the first queries of the test set, neither chosen nor sorted, with their best answers.

    Args:
        path: where to write the PNG.
        benchmark: queries and gallery.
        queries (`torch.Tensor` of shape `(num_queries, dim)`): features of the composed queries.
    """
    rows = min(ROWS, len(queries))
    rankings = benchmark.rank(queries, ANSWERS)[:rows].tolist()
    figure = Figure(figsize=(13.2, 1.62 * rows + 1.1), dpi=110, facecolor="white")
    grid = figure.add_gridspec(
        rows, 2 + ANSWERS, width_ratios=[1, TEXT_WIDTH] + [1] * ANSWERS, left=0.015, right=0.985, bottom=0.02,
        top=1 - 0.78 / (1.62 * rows + 1.1), wspace=0.12, hspace=0.14,
    )  # fmt: skip
    gallery = benchmark.data["gallery"]
    for index in range(rows):
        query = benchmark.data["queries"][index]
        axes = [figure.add_subplot(grid[index, column]) for column in range(2 + ANSWERS)]
        _picture(axes[0], gallery[query["reference_id"]]["image"], "#c8cdd2", 1.0)
        _words(axes[1], query["modification"])
        for axis, answer in zip(axes[2:], rankings[index]):
            is_right = answer in query["answer_ids"]
            _picture(axis, gallery[answer]["image"], RIGHT if is_right else WRONG, 3.5 if is_right else 1.2)
            if is_right:
                axis.text(
                    0.93, 0.93, "✓", transform=axis.transAxes, ha="right", va="top", fontsize=12, color="white", weight="bold",
                    bbox={"boxstyle": "circle,pad=0.18", "facecolor": RIGHT, "edgecolor": "white"},
                )  # fmt: skip
        if index == 0:
            _header(axes[0], "reference image")
            _header(axes[1], "+  modification text")
            _header(axes[2], f"answers out of {len(gallery) - 1:,}, best first; green shows what was asked for")
    figure.savefig(path)


def _header(axis: Axes, text: str) -> None:
    axis.set_title(text, loc="left", fontsize=11.5, color=MUTED, pad=12)


def _picture(axis: Axes, image, color: str, width: float) -> None:
    axis.imshow(image, interpolation="lanczos")
    axis.set_xticks([])
    axis.set_yticks([])
    for spine in axis.spines.values():
        spine.set_edgecolor(color)
        spine.set_linewidth(width)


def _words(axis: Axes, text: str) -> None:
    axis.axis("off")
    axis.set_box_aspect(1 / TEXT_WIDTH)
    axis.text(0.04, 0.5, "\n".join(textwrap.wrap(text, 27)), transform=axis.transAxes, va="center", fontsize=12.5, color=INK)
