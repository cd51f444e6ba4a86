"""What decides features, of any rows and of these: they are found again as long as all of it is the same."""

import hashlib
import json
import os
from collections.abc import Sequence

import xxhash
from accelerate import PartialState
from accelerate.utils import gather_object
from datasets import Dataset
from tqdm.auto import tqdm

from m2c.data.loading import ROW_NAME
from m2c.fingerprints import image_side_key, reference_key, text_side_key
from m2c.training.samples.captions import CaptionSamples
from m2c.training.samples.images import PairSamples, TripletSamples
from modeling_m2c import M2CModel


# To be raised when code changes what is stored.
FORMAT = 1


def describe_features(samples: PairSamples | CaptionSamples | TripletSamples, model: M2CModel, mixed_precision: str) -> dict:
    """All that decides the features of samples, besides their rows, in a form for JSON.

    What the features pass through later has no part in it: the mapper and the injection in stage 1, prompts and adapters in
    stage 2.
    """
    is_triplets = isinstance(samples, TripletSamples)
    return {
        "format": FORMAT,
        "stage": 2 if is_triplets else 1,
        "images": image_side_key(model, samples.processor),
        "texts": text_side_key(model, samples.processor),
        "reference": reference_key(model) if is_triplets else None,
        "patch_grid": model.config.injection_grid_size,
        "mixed_precision": mixed_precision,
        "augmentation": samples.augmentation,
    }


def key_of(description: dict) -> str:
    """A name for the folder of features of this description."""
    return hashlib.sha256(json.dumps(description, sort_keys=True).encode()).hexdigest()[:32]


def digests_of(rows: Dataset, parts: Sequence[range]) -> list[str]:
    """A hash of each of these parts, of texts and undecoded images: of their bytes if the data set holds them, else of path,
    size and time of the file. A common step of all processes, which share the work."""
    rows = rows.select_columns([column for column in rows.column_names if column != ROW_NAME])
    state = PartialState()
    mine = range(len(parts))[state.process_index :: state.num_processes]
    is_long = len(mine) > 100
    digests = [
        (number, _digest(rows[parts[number].start : parts[number].stop]))
        for number in tqdm(mine, desc="looking for changes in the data", disable=not (is_long and state.is_main_process))
    ]
    return [digest for _, digest in sorted(gather_object(digests))]


def _digest(columns: dict[str, list]) -> str:
    identities = {name: [_identity(value) for value in values] for name, values in columns.items()}
    return xxhash.xxh3_128_hexdigest(json.dumps(identities, sort_keys=True).encode())


def _identity(value: str | dict | None) -> str | list | None:
    if not isinstance(value, dict):
        return value or ""
    if value["bytes"] is not None:
        return xxhash.xxh3_128_hexdigest(value["bytes"])
    path = os.path.abspath(value["path"])
    try:
        status = os.stat(path)
    except OSError:
        return [path]  # encoding will say which row this is
    return [path, status.st_size, status.st_mtime_ns]
