"""Writes prediction files in the form that the servers of CIRR and CIRCO take, or says why they would not."""

import json
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Literal

from .circo import validate_circo
from .cirr import VERSION, validate_cirr
from .problems import summary


def write_cirr_submission(
    path: str | Path,
    metric: Literal["recall", "recall_subset"],
    rankings: dict[str, list[str]],
    queries: Sequence[dict],
    gallery_names: Collection[str] | None = None,
) -> None:
    """Writes one of the two files of CIRR's server.

    Args:
        path: the file; one that exists is replaced.
        metric: "recall" for 50 names a query, "recall_subset" for 3 of its `img_set`.
        rankings: names for each `pairid`, best first, without the query's own reference.
        queries, gallery_names: as in [`validate_cirr`].

    Raises:
        ValueError: if the server would reject the file; nothing is written.
    """
    predictions = {"version": VERSION, "metric": metric, **rankings}
    _write(path, predictions, validate_cirr(predictions, queries, gallery_names))


def write_circo_submission(
    path: str | Path,
    rankings: dict[str, list[int]],
    queries: Sequence[dict],
    gallery_ids: Collection[int] | None = None,
) -> None:
    """Writes the file of CIRCO's server.

    Args:
        path: the file; one that exists is replaced.
        rankings: 50 ids of images for each query `"0"` to `"n-1"`, best first, as Python's own integers.
        queries, gallery_ids: as in [`validate_circo`].

    Raises:
        ValueError: if the server would reject the file; nothing is written.
    """
    _write(path, rankings, validate_circo(rankings, queries, gallery_ids))


def _write(path: str | Path, predictions: dict, problems: list[str]) -> None:
    if problems:
        raise ValueError(f"{path} was not written, for the server would reject it:\n{summary(problems)}")
    # Without spaces, as CIRR's server takes 5 MB and the names of 50 images for each query are 4.
    Path(path).write_text(json.dumps(predictions, separators=(",", ":")), encoding="utf-8")
