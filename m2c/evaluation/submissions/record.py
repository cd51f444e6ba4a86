"""Scores a prediction file from disk: what was read, the figures, and what is wrong."""

from pathlib import Path
from typing import Literal

from .circo import score_circo, validate_circo
from .cirr import score_cirr, validate_cirr
from .problems import summary
from .reading import find_gallery, has_targets, read_annotations, read_predictions


# "Maximum 5MB", says the page of CIRR's server.
CIRR_SERVER_BYTES = 5_000_000

_VALIDATE = {"cirr": validate_cirr, "circo": validate_circo}
_SCORE = {"cirr": score_cirr, "circo": score_circo}


def score(benchmark: Literal["cirr", "circo"], annotations: str | Path, predictions: str | Path) -> dict:
    """Validates a prediction file, and scores it if it is valid and the annotations have targets.

    Args:
        benchmark: whose file it is.
        annotations: CIRR's `cap.rc2.<split>.json`, or CIRCO's `val.json` or `test.json`. The gallery is looked for beside it.
        predictions: the file that the server would be given.

    Returns:
        A record for JSON: `benchmark`; `annotations`, `predictions` and `gallery`, the files' names without their folders
        (`gallery` is `None` where there is none); `queries`, how many the annotations have; `figures` as of [`score_cirr`]
        and [`score_circo`], empty where nothing was scored; `problems` as of [`validate_cirr`] and [`validate_circo`];
        `notes`, what was not checked or done.

    Raises:
        OSError: if a file is not there.
        ValueError: if a file is unreadable or something else than it should be; the message names it and the remedy.
    """
    annotations, predictions = Path(annotations), Path(predictions)
    queries = read_annotations(annotations, benchmark)
    content = read_predictions(predictions)
    gallery, gallery_path, searched = find_gallery(annotations, benchmark)
    problems = _VALIDATE[benchmark](content, queries, gallery)
    is_scored = has_targets(queries, benchmark)
    notes = []
    if gallery is None:
        notes.append(f"images unknown to the gallery were not looked for, for want of {searched}")
    if not is_scored:
        notes.append("the annotations have no targets, as those of a test split: validated, not scored")
        size = predictions.stat().st_size
        if benchmark == "cirr" and size > CIRR_SERVER_BYTES:
            problems.append(f"the file has {size / 1e6:.1f} MB, and the server takes 5; write it without indentation")
    return {
        "benchmark": benchmark,
        # Names only: where files lie is nobody's business.
        "annotations": annotations.name,
        "predictions": predictions.name,
        "gallery": None if gallery_path is None else gallery_path.name,
        "queries": len(queries),
        "figures": _SCORE[benchmark](content, queries) if is_scored and not problems else {},
        "problems": problems,
        "notes": notes,
    }


def table(record: dict) -> str:
    """A record of [`score`] to read: the figures as a Markdown table, or the first 20 problems; then the notes."""
    problems = record["problems"]
    verdict = f"{len(problems)} problem{'s' if len(problems) > 1 else ''}" if problems else "valid"
    parts = [f"{record['benchmark']}, {record['queries']} queries: {record['predictions']}: {verdict}"]
    if problems:
        parts.append(summary(problems))
    if record["figures"]:
        rows = [f"| {name} | {figure['percent']:.4f} | {figure['queries']} |" for name, figure in record["figures"].items()]
        parts.append("\n".join(["| figure | percent | queries |", "|---|---|---|", *rows]))
    parts += [f"Note: {note}." for note in record["notes"]]
    return "\n\n".join(parts)
