"""The data of a run: rows, samples of them, and features of these."""

from collections.abc import Callable

from datasets import Dataset

from m2c.data import scenes
from m2c.data.loading import load_rows, undecoded
from modeling_m2c import M2CModel
from processing_m2c import M2CProcessor

from .config import TrainingConfig
from .features import CachedFeatures, encode_pairs, encode_triplets
from .samples import IMAGE_COLUMNS, PAIR_COLUMNS, TRIPLET_COLUMNS, PairSamples, TripletSamples


def build_data(
    config: TrainingConfig, model: M2CModel, processor: M2CProcessor
) -> tuple[PairSamples | TripletSamples | CachedFeatures, CachedFeatures | None]:
    """Training data and held-out data of a run.

    Returns:
        The rows to train on, as samples or, with `cached_views`, as features of them; and features of the rows held out for
        validation, if there are any.

    Raises:
        ValueError: if nothing is left to train on, or the data do not fit; see [`m2c.data.loading.load_rows`].
    """
    rows = _read_rows(config)
    if config.max_samples is not None:
        rows = rows.select(range(min(config.max_samples + config.validation_size, len(rows))))
    if config.validation_size >= len(rows):
        raise ValueError(f"--validation_size {config.validation_size} leaves nothing of {len(rows)} rows to train on")
    split = len(rows) - config.validation_size

    def samples_of(part: Dataset) -> PairSamples | TripletSamples:
        if config.stage == 1:
            return PairSamples(part, processor, config.horizontal_flip, config.seed)
        return TripletSamples(part, processor)

    def encode(part: Dataset, views: int) -> CachedFeatures:
        return CachedFeatures.encode(
            samples_of(part), encoder(config), model, views, config.mixed_precision, config.num_workers
        )

    held_out = encode(rows.select(range(split, len(rows))), 1) if config.validation_size else None
    training_rows = rows.select(range(split))
    if config.cached_views == 0:
        return samples_of(training_rows), held_out
    return encode(training_rows, config.cached_views if config.stage == 1 else 1), held_out


def encoder(config: TrainingConfig) -> Callable[[M2CModel, dict], dict]:
    """What the frozen parts of the model do to a batch in this stage."""
    return encode_pairs if config.stage == 1 else encode_triplets


def _read_rows(config: TrainingConfig) -> Dataset:
    columns = PAIR_COLUMNS if config.stage == 1 else TRIPLET_COLUMNS
    if config.dataset == "scenes":
        draw = scenes.pairs if config.stage == 1 else scenes.triplets
        rows = draw(config.max_samples + config.validation_size, seed=config.seed)
        return undecoded(rows, IMAGE_COLUMNS & set(columns))
    names = {column: getattr(config, f"{column}_column") for column in columns}
    if config.stage == 2 and config.soft_weight == 0:
        del names["reference_caption"]  # nothing else needs it
    return load_rows(config.dataset, names, IMAGE_COLUMNS & set(columns), config.dataset_config, config.dataset_split)
