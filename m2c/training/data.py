"""The data of a run: rows, samples of them, and features of these."""

from datasets import Dataset, IterableDataset

from m2c.data import scenes
from m2c.data.loading import ROW_NAME, load_rows, load_stream, undecoded
from modeling_m2c import M2CModel
from processing_m2c import M2CProcessor

from .config import TrainingConfig
from .features.cache import FeatureCache
from .features.encoding import CachedFeatures, Encoder
from .samples.captions import CAPTION_COLUMNS, CaptionSamples
from .samples.images import IMAGE_COLUMNS, PAIR_COLUMNS, TRIPLET_COLUMNS, PairSamples, TripletSamples
from .samples.streams import StreamedSamples, hold_out


Samples = PairSamples | CaptionSamples | TripletSamples


def build_data(
    config: TrainingConfig, model: M2CModel, processor: M2CProcessor
) -> tuple[Samples | StreamedSamples | CachedFeatures, CachedFeatures | None]:
    """Training data and held-out data of a run.

    Returns:
        The rows to train on, as samples or, with `cached_views`, as features of them; and features of the rows held out for
        validation, if there are any.

    Raises:
        ValueError: if nothing is left to train on, or the data do not fit; see [`m2c.data.loading.load_rows`].
    """
    samples, held_out = read_samples(config, processor)
    cache = FeatureCache(config, model, Encoder(config, processor))
    stored = cache.features_of(held_out, 1) if held_out is not None else None
    if config.cached_views:
        return cache.features_of(samples, config.cached_views), stored
    return samples, stored


def read_samples(config: TrainingConfig, processor: M2CProcessor) -> tuple[Samples | StreamedSamples, Samples | None]:
    """Samples to train on, and those held out for validation, if there are any. Nothing is encoded.

    Raises:
        ValueError: as [`build_data`] does.
    """

    def samples_of(part: Dataset | IterableDataset) -> Samples:
        if config.objective == "text_only":
            return CaptionSamples(part, processor)
        if config.stage == 1:
            return PairSamples(part, processor, config.horizontal_flip, config.seed)
        return TripletSamples(part, processor)

    rows, held_out = _split(_read_rows(config), config)
    samples = samples_of(rows)
    if config.streaming:
        samples = StreamedSamples(samples, config)
    return samples, samples_of(held_out) if held_out is not None else None


def _split(rows: Dataset | IterableDataset, config: TrainingConfig) -> tuple[Dataset | IterableDataset, Dataset | None]:
    """Rows to train on, and rows to validate on, if there are to be any."""
    held_out = config.validation_size
    if config.streaming:
        return hold_out(rows, held_out) if held_out else (rows, None)
    if config.max_samples is not None:
        rows = rows.select(range(min(config.max_samples + held_out, len(rows))))
    if held_out >= len(rows):
        raise ValueError(f"--validation_size {held_out} leaves nothing of {len(rows)} rows to train on")
    split = len(rows) - held_out
    if not held_out:
        return rows, None
    names = [str(row) for row in range(split, len(rows))]  # they are looked for in all of the data set
    return rows.select(range(split)), rows.select(range(split, len(rows))).add_column(ROW_NAME, names)


def _read_rows(config: TrainingConfig) -> Dataset | IterableDataset:
    columns = PAIR_COLUMNS if config.stage == 1 else TRIPLET_COLUMNS
    if config.objective == "text_only":
        columns = CAPTION_COLUMNS
    if config.dataset == "scenes":
        draw = scenes.pairs if config.stage == 1 else scenes.triplets
        rows = draw(config.max_samples + config.validation_size, seed=config.seed).select_columns(list(columns))
        return undecoded(rows, IMAGE_COLUMNS & set(columns))
    names = {column: getattr(config, f"{column}_column") for column in columns}
    if config.stage == 2 and config.soft_weight == 0:
        del names["reference_caption"]  # nothing else needs it
    load = load_stream if config.streaming else load_rows
    return load(config.dataset, names, IMAGE_COLUMNS & set(columns), config.dataset_config, config.dataset_split)
