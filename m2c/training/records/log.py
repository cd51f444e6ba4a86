"""What a run says of itself: `log.jsonl`, one line a step, and warnings."""

import json
import math
import sys
from pathlib import Path

from tqdm.auto import tqdm

from m2c.whole_files import write_whole

from .full_disk import naming_file


LOG = "log.jsonl"


def append(output_dir: str | Path, entry: dict) -> None:
    """Adds a line to `log.jsonl`; raises `OSError` if it cannot be written."""
    path = Path(output_dir, LOG)
    with naming_file(path), open(path, "a", encoding="utf-8") as log:
        log.write(_line(entry))


def warn(message: str) -> None:
    """Says what went wrong without ending the run, on a line above the progress bar."""
    tqdm.write(f"warning: {message}", file=sys.stderr)


def read_log(path: Path) -> list[dict]:
    """The entries of `log.jsonl`; none if a run has not come so far. What a killed run left half-written is no entry."""
    entries = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else ():
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        if isinstance(entry, dict) and "step" in entry:
            entries.append(entry)
    return entries


def forget_after(output_dir: str | Path, step: int) -> None:
    """Cuts the log off after a step, as a resumed run writes the steps after its checkpoint again."""
    path = Path(output_dir, LOG)
    if path.exists():
        kept = [entry for entry in read_log(path) if entry["step"] <= step]
        with naming_file(path):
            write_whole(path, "".join(map(_line, kept)))


def _line(entry: dict) -> str:
    """JSON has no name for what is not finite: it becomes `null`."""
    finite = {name: value if value is not None and math.isfinite(value) else None for name, value in entry.items()}
    return json.dumps(finite, allow_nan=False) + "\n"
