"""Small shards for all tests of features."""

import pytest
import torch

from .rows import shrink


@pytest.fixture(autouse=True)
def small_shards(monkeypatch):
    shrink(monkeypatch.setattr)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
