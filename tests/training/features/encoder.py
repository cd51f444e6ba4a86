"""Encodes two views of a few rows for a CLIP, into a cache, and says which shards; or dies while it writes the fifth."""

import os
import signal
import sys

from accelerate import Accelerator
from rows import pair_samples, shrink
from safetensors.torch import save_file

from m2c import feature_files
from m2c.checkpoints import load_model, load_processor
from m2c.training import TrainingConfig
from m2c.training.features.cache import FeatureCache
from m2c.training.features.encoding import Encoder
from m2c.training.features.shards import FeatureShards


def main(clip_path: str, cache_dir: str, *die: str) -> None:
    shrink(setattr)
    state = Accelerator()
    write = FeatureShards.write

    def announce(shards, shard, features):
        write(shards, shard, features)
        print(f"process {state.process_index} stored {shard.view} {shard.number}", flush=True)

    def half(tensors, path, metadata):
        save_file(tensors, path, metadata)
        if len(list(path.parent.glob("*.safetensors"))) == 4:
            path.write_bytes(path.read_bytes()[:100])
            os.kill(os.getpid(), signal.SIGKILL)

    FeatureShards.write = announce
    if die:
        feature_files.save_file = half
    model, processor = load_model(clip_path).eval(), load_processor(clip_path)
    config = TrainingConfig(cache_dir=cache_dir)
    cache = FeatureCache(config, model, Encoder(config, processor))
    features = cache.features_of(pair_samples(processor), 2)
    print(f"process {state.process_index} of {state.num_processes} sees {len(features)} rows", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
