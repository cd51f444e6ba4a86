"""The benchmark of training measures what it says: the same steps, taken in several ways."""

import pytest
import torch


@pytest.fixture
def benchmark(load_benchmark):
    return load_benchmark("training")


@pytest.fixture
def setting(benchmark, tmp_path):
    def make(stage: int, precision: str = "no", batch_size: int = 12):
        setting = benchmark.Setting(stage, "tiny", batch_size, "cpu", precision, tmp_path)
        benchmark.write_data(setting)
        return setting

    return make


@pytest.mark.parametrize("precision", ["no", "bf16"])
@pytest.mark.parametrize("stage", [1, 2])
def test_all_ways_take_the_same_step(benchmark, setting, stage, precision):
    seconds = benchmark.measure_in_turns(setting(stage, precision), benchmark.WAYS, rounds=1)
    assert list(seconds) == list(benchmark.WAYS) and all(value > 0 for value in seconds.values())


@pytest.mark.parametrize("stage", [1, 2])
def test_chunks_take_the_same_step(benchmark, setting, stage):
    whole, _ = benchmark.GRAD_CACHE_WAYS
    chunked = benchmark.Way("chunks", trimmed=True, cached=True, chunk_size=3)
    assert len(benchmark.measure_in_turns(setting(stage), (whole, chunked), rounds=1)) == 2


def test_a_way_with_other_losses_is_found(benchmark, setting, monkeypatch):
    monkeypatch.setattr(benchmark, "soft_alignment", lambda *_: torch.tensor(5.0))
    with pytest.raises(ValueError, match=r"the loss .* by .the authors. way"):
        benchmark.measure_in_turns(setting(1), benchmark.WAYS[:2], rounds=1)


def test_work_and_memory(benchmark, setting):
    """Less work with shorter prompts, and less still where nothing is encoded."""
    setting = setting(1)
    memory, work = zip(*(benchmark.measure_alone(setting, benchmark.WAYS[index]) for index in (0, 1, 3)))
    assert work[0] > work[1] > work[2] > 0 and memory[0] > 0.1
