"""A few rows, and shards that hold fewer of them."""

from datasets import Dataset

from m2c.data import scenes
from m2c.data.loading import undecoded
from m2c.training.features import cache as feature_cache
from m2c.training.features import shards as feature_shards
from m2c.training.samples.images import PairSamples, TripletSamples


ROWS = 11
SHARDS = 3  # of four rows
PAIRS = undecoded(scenes.pairs(ROWS), {"image"})
TRIPLETS = undecoded(scenes.triplets(ROWS), {"reference", "target"})
TEXTS = TRIPLETS["modification"][:]


def shrink(module_setter) -> None:
    """Shards of four rows, encoded two at a time."""
    module_setter(feature_shards, "ROWS_PER_SHARD", 4)
    module_setter(feature_cache, "BATCH_SIZE", 2)


def pair_samples(processor, rows: Dataset = PAIRS, flip: float = 0.5, seed: int = 0) -> PairSamples:
    return PairSamples(undecoded(rows, {"image"}), processor, flip, seed)


def triplet_samples(processor, rows: Dataset = TRIPLETS) -> TripletSamples:
    return TripletSamples(undecoded(rows, {"reference", "target"}), processor)
