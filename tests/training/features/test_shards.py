"""Shards are mapped into memory."""

import re
from pathlib import Path

import pytest
import torch

from m2c.training.features.shards import FeatureShards, Shard


@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="asks Linux how much of a file is in memory")
def test_only_rows_that_are_asked_for_are_read(tmp_path):
    shards = FeatureShards(tmp_path, 4, 1)
    shards.write(Shard(0, 0), {"image_tokens": torch.randn(4, 8_000_000).half()})
    size = (tmp_path / "view0-00000.safetensors").stat().st_size

    def in_memory() -> int:
        maps = Path("/proc/self/smaps").read_text()
        return sum(1024 * int(size) for size in re.findall(r"view0-00000\.safetensors\n(?:.*\n)*?Rss: +(\d+) kB", maps))

    shards.open()
    assert in_memory() < 0.02 * size
    row = shards.read(0, [2])["image_tokens"]
    assert 0.2 * size < in_memory() < 0.3 * size and row.shape == (1, 8_000_000)
