"""What a run is made of, wherever that lies: what tells a checkpoint of this run from one of another."""

import hashlib
import json
import os

from datasets import Dataset

from m2c.fingerprints import image_side_key, reference_key, text_side_key
from m2c.training.config import TrainingConfig
from modeling_m2c import M2CModel
from processing_m2c import M2CProcessor


ROWS_AT_A_TIME = 10_000


def identity_of(
    config: TrainingConfig, model: M2CModel, processor: M2CProcessor, rows: Dataset | None
) -> dict[str, str | None]:
    """Hashes of what a run needs besides its checkpoint and its settings, by the option that names it.

    Args:
        config: of the run.
        model: of the run; what is trained has no part in it.
        processor: its processor.
        rows: to train on; `None` for a stream, of which nobody knows.
    """
    frozen = [image_side_key(model, processor), text_side_key(model, processor)]
    if config.stage == 2:
        frozen.append(reference_key(model))
    prompts = [processor.composing_template, processor.mapping_template]
    return {"model": _digest([*frozen, *prompts]), "dataset": None if rows is None else _key_of_rows(rows)}


def _key_of_rows(rows: Dataset) -> str:
    """A hash of all texts and of the names of image files, in their order. Not of the images themselves: a data set is to move
    to another disk, and a damaged image is to be mended, without an end to the run."""
    known, digests = rows.flatten(), []
    known = known.select_columns([column for column in known.column_names if not column.endswith(".bytes")])
    for start in range(0, len(known), ROWS_AT_A_TIME):
        columns = known[start : start + ROWS_AT_A_TIME]
        for column in columns:
            if column.endswith(".path"):
                columns[column] = [path and os.path.basename(path) for path in columns[column]]
        digests.append(_digest(columns))
    return _digest([len(rows), *digests])


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
