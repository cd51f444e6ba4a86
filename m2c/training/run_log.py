"""What a run says of itself: `log.jsonl`, one line a step, and warnings."""

import json
import sys
from pathlib import Path

from tqdm.auto import tqdm

from .whole_files import write_whole


LOG = "log.jsonl"


def append(output_dir: str | Path, entry: dict) -> None:
    with open(Path(output_dir, LOG), "a", encoding="utf-8") as log:
        log.write(json.dumps(entry) + "\n")


def warn(message: str) -> None:
    """Says what went wrong without ending the run, on a line above the progress bar."""
    tqdm.write(f"warning: {message}", file=sys.stderr)


def forget_after(output_dir: str | Path, step: int) -> None:
    """Cuts the log off after a step, as a resumed run writes the steps after its checkpoint again."""
    path = Path(output_dir, LOG)
    if not path.exists():
        return
    kept = []
    for line in path.read_text(encoding="utf-8").splitlines(keepends=True):
        try:
            entry = json.loads(line)
        except ValueError:  # a kill has cut the last line short
            break
        if entry["step"] <= step:
            kept.append(line)
    write_whole(path, "".join(kept))
