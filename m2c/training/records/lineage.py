"""What the model that a run starts from says of its own making."""

import json
from pathlib import Path

from huggingface_hub import hf_hub_download
from huggingface_hub.errors import HTTPError

from m2c.checkpoints import is_m2c


# What training, or else a conversion, leaves beside a model.
RECORDS = ("training.json", "conversion.json")


def record_of(name: str) -> dict | None:
    """The record of a model of M2C, with that of what it started from in it; `None` of a plain CLIP, or where there is none.

    Args:
        name: a folder, or a repository of the Hub. One that cannot be reached, or a damaged record, is as none: a run that is
            done is not to fail for it.
    """
    try:
        if not is_m2c(name):
            return None
    except (HTTPError, ValueError):
        return None
    for file in RECORDS:
        try:
            path = Path(name, file) if Path(name).is_dir() else Path(hf_hub_download(name, file))
            record = json.loads(path.read_text(encoding="utf-8"))
        # A connection that is lost in the middle of an answer is no OSError.
        except (HTTPError, OSError, ValueError):
            continue
        if isinstance(record, dict):
            return record
    return None
