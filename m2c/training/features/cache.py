"""Frozen work is done once: features are encoded by all processes together, and stored for every epoch and every run."""

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from accelerate import PartialState
from filelock import FileLock, Timeout
from torch.utils.data import DataLoader
from tqdm.auto import tqdm

from m2c.cache_dir import cache_folder
from m2c.data.loading import ROW_NAME
from m2c.training.config import TrainingConfig
from m2c.training.processes.agreement import on_main
from m2c.training.samples.images import PairSamples, TripletSamples
from modeling_m2c import M2CModel

from .encoding import BATCH_SIZE, CachedFeatures
from .key import describe_features, digests_of, key_of
from .shards import FeatureShards, Shard, parts_of


ABOUT = "about.json"
# How long one process waits for a lock before it lets the others know: their patience with each other has an end.
TURN_SECONDS = 10


class FeatureCache:
    """Encodes samples into `<cache_dir>/training`: into a folder that is named by all that decides features besides the rows,
    in shards that are named by place and digest of their rows. The place counts, as augmentation depends on it.

    Args:
        config: of the run: where to, how many GB at most, in which precision the towers run.
        model: in eval mode, on its device.
        encode: what to do to a batch of samples; the floating-point part of the result is stored, in half precision.
    """

    def __init__(self, config: TrainingConfig, model: M2CModel, encode: Callable[[M2CModel, dict], dict]):
        self.config, self.model, self.encode = config, model, encode
        self.state = PartialState()

    def features_of(self, samples: PairSamples | TripletSamples, num_views: int) -> CachedFeatures:
        """Opens the features of all samples, after encoding those that are not there yet. A common step of all processes.

        Raises:
            ValueError: if an image cannot be read, features do not fit into half precision, or all of them would take more
                than `--cache_limit_gb`.
            OSError: if the disk is too small or cannot be written.
        """
        about = describe_features(samples, self.model, self.config.mixed_precision)
        shards = self._shards(samples, num_views, about)
        if on_main(shards.missing):
            with _only_run_in(shards.folder):
                self._encode(samples, shards, on_main(lambda: self._prepare(samples, shards, about)))
                self.state.wait_for_everyone()
        try:
            shards.open()
        except FileNotFoundError as error:
            raise OSError(f"{error}; machines that train together must share the --cache_dir") from error
        return CachedFeatures(shards, samples)

    def check(self, samples: PairSamples | TripletSamples, num_views: int) -> str:
        """What [`features_of`] would take and still has to store, for people. Nothing is written. A common step of all
        processes.

        Raises:
            ValueError, OSError: where there is no space for it.
        """
        shards = self._shards(samples, num_views, describe_features(samples, self.model, self.config.mixed_precision))
        return self._check_space(samples, shards, shards.missing())

    def _shards(self, samples: PairSamples | TripletSamples, num_views: int, about: dict) -> FeatureShards:
        folder = cache_folder(self.config.cache_dir) / "training" / key_of(about)
        digests = digests_of(samples.encoded_rows, parts_of(len(samples)))
        return FeatureShards(folder, len(samples), num_views, digests)

    def _prepare(self, samples: PairSamples | TripletSamples, shards: FeatureShards, about: dict) -> list[Shard]:
        """Returns what is to be encoded, if there is space for it."""
        try:
            shards.remove_leftovers()
            for_people = {"model": self.config.model, **about}
            (shards.folder / ABOUT).write_text(json.dumps(for_people, indent=2) + "\n", encoding="utf-8")
        except OSError as error:
            raise _cannot_store(shards.folder, error) from error
        missing = shards.missing()
        if missing:
            tqdm.write(self._check_space(samples, shards, missing))
        return missing

    def _check_space(self, samples: PairSamples | TripletSamples, shards: FeatureShards, missing: list[Shard]) -> str:
        one_row = self._encode_batch(samples, samples.collate([samples[0]]), first_row=0)
        row_bytes = sum(tensor.nbytes for tensor in one_row.values())
        total = shards.num_rows * shards.num_views * row_bytes / 1e9
        needed = sum(len(shards.rows(shard)) for shard in missing) * row_bytes / 1e9
        there = next(folder for folder in (shards.folder, *shards.folder.parents) if folder.exists())
        free = shutil.disk_usage(there).free / 1e9
        size = f"features of {shards.num_rows} rows, views: {shards.num_views}, take {total:.3f} GB"
        remedies = "fewer --cached_views (0 encodes in every step), a smaller --patch_grid in stage 1"
        limit = self.config.cache_limit_gb
        if limit is not None and total > limit:
            raise ValueError(f"{size}, more than --cache_limit_gb {limit}; choose {remedies}, or another limit")
        where = f"{needed:.3f} GB are still to be stored in {shards.folder}, with {free:.3f} GB free"
        if needed > free:
            raise OSError(f"{size}; {where}; choose {remedies}, or another --cache_dir")
        return f"{size}; {where}"

    def _encode(self, samples: PairSamples | TripletSamples, shards: FeatureShards, missing: list[Shard]) -> None:
        """Stores this process's share of the shards."""
        mine = missing[self.state.process_index :: self.state.num_processes]
        total = sum(len(shards.rows(shard)) for shard in mine)
        with tqdm(total=total, desc="encoding", unit=" rows", disable=not self.state.is_main_process) as bar:
            for view in range(shards.num_views):
                share = [shard for shard in mine if shard.view == view]
                batches = self._batches(samples, view, [shards.rows(shard) for shard in share])
                for shard in share:
                    parts, rows = [], shards.rows(shard)
                    for start in rows[::BATCH_SIZE]:
                        parts.append(self._encode_batch(samples, next(batches), start))
                        bar.update(min(BATCH_SIZE, rows.stop - start))
                    shards.write(shard, {name: torch.cat([part[name] for part in parts]) for name in parts[0]})

    def _batches(self, samples: PairSamples | TripletSamples, view: int, parts: list[range]) -> Iterator[dict]:
        """The rows of these parts in one view, batch after batch."""
        samples.set_epoch(view)
        batches = [rows[start : start + BATCH_SIZE] for rows in parts for start in range(0, len(rows), BATCH_SIZE)]
        # With a generator of its own: training must draw the same whether features were stored before or not.
        loader = DataLoader(
            samples,
            batch_sampler=batches,
            collate_fn=samples.collate,
            num_workers=self.config.num_workers,
            generator=torch.Generator(),
        )
        return iter(loader)

    def _encode_batch(
        self, samples: PairSamples | TripletSamples, batch: dict[str, torch.Tensor], first_row: int
    ) -> dict[str, torch.Tensor]:
        precision, device = self.config.mixed_precision, self.model.device
        dtype = torch.float16 if precision == "fp16" else torch.bfloat16
        with torch.autocast(device.type, dtype, enabled=precision != "no"):
            features = self.encode(self.model, {name: tensor.to(device) for name, tensor in batch.items()})
        half = {name: tensor.half().cpu() for name, tensor in features.items() if tensor.is_floating_point()}
        for name, tensor in half.items():
            is_broken = ~tensor.flatten(1).isfinite().all(dim=1)
            if is_broken.any():
                row = first_row + int(is_broken.int().argmax())
                raise ValueError(
                    f"{name} of row {samples.rows[row].get(ROW_NAME, row)} of the data set are not finite in half precision, "
                    "which features are stored in; is the checkpoint whole? --cached_views 0 trains without storing any"
                )
        return half


@contextmanager
def _only_run_in(folder: Path) -> Iterator[None]:
    """Waits, on all processes, until no other run encodes into this folder, and keeps others waiting meanwhile.

    The processes hear of each other all the time: who waits in silence is taken for lost.
    """
    lock = FileLock(folder / ".lock")
    if not on_main(lambda: _acquire(lock, 0)):
        on_main(lambda: tqdm.write(f"another run is storing features in {folder}; waiting for it to finish"))
        while not on_main(lambda: _acquire(lock, TURN_SECONDS)):
            pass
    try:
        yield
    finally:
        lock.release()  # nothing to do on other processes than the first


def _acquire(lock: FileLock, seconds: float) -> bool:
    """Returns whether it could be had within this time."""
    folder = Path(lock.lock_file).parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=seconds)
    except Timeout:
        return False
    except OSError as error:
        raise _cannot_store(folder, error) from error
    return True


def _cannot_store(folder: Path, error: OSError) -> OSError:
    return OSError(f"features cannot be stored in {folder}: {error}; choose another --cache_dir")
