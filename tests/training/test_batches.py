"""Batches are the same whatever reads them, and arrive as workers can best send them."""

import threading

import pytest
import torch
from accelerate import Accelerator
from PIL import Image

from m2c.data import scenes
from m2c.data.loading import undecoded
from m2c.training import TrainingConfig
from m2c.training.batches import IndexedBatches, ahead, read_ahead
from m2c.training.features.encoding import Encoder, encode_pairs
from m2c.training.samples.images import PairSamples


def numbered(count: int, threads: list | None = None):
    for number in range(count):
        if threads is not None:
            threads.append(threading.current_thread())
        yield {"x": torch.tensor(number)}


def test_a_thread_reads_ahead_in_order():
    threads, prepared = [], []
    batches = read_ahead(numbered(5, threads), lambda: prepared.append(threading.current_thread()))
    assert next(batches)["x"] == 0
    while len(threads) < 2:  # the second is read while the first is in use
        pass
    assert [int(batch["x"]) for batch in batches] == [1, 2, 3, 4]
    assert len(set(threads)) == 1 and set(prepared) == set(threads) and threading.current_thread() not in threads


@pytest.mark.parametrize("device", ["cpu", "mps", "xpu"])
def test_what_is_not_cuda_reads_when_it_needs(device):
    batches = numbered(3)
    assert ahead(batches, torch.device(device)) is batches


def test_what_cuda_needs_a_thread_reads(monkeypatch):
    asked = []
    monkeypatch.setattr("m2c.training.batches.read_ahead", lambda batches, prepare: asked.append(prepare) or batches)
    ahead(numbered(3), torch.device("cuda", 1))
    (prepare,) = asked
    assert prepare.func is torch.cuda.set_device and prepare.args == (torch.device("cuda", 1),)


def test_what_goes_wrong_ahead_comes_up_in_its_place():
    def broken():
        yield from numbered(2)
        raise ValueError("row 7 is unreadable")

    batches = read_ahead(broken(), lambda: None)
    assert [int(next(batches)["x"]) for _ in range(2)] == [0, 1]
    with pytest.raises(ValueError, match="row 7 is unreadable"):
        next(batches)


def test_a_reader_that_is_left_ends():
    batches = read_ahead(numbered(1000), lambda: None)
    next(batches)
    before = threading.active_count()
    batches.close()
    assert threading.active_count() == before - 1


def test_what_else_draws_does_not_depend_on_batches(processor):
    rows = undecoded(scenes.pairs(9), {"image"})
    config = TrainingConfig(batch_size=4)
    batches = IndexedBatches(PairSamples(rows, processor, 0.5, 0), config, Accelerator(cpu=True))
    state = torch.get_rng_state()
    stream = batches.since(0)
    for _ in range(5):
        next(stream)
    assert torch.equal(torch.get_rng_state(), state)


def test_images_travel_as_bytes_and_arrive_as_the_processor_makes_them(processor, model):
    """Bit for bit; also with a mean that is not the same for all channels, as CLIP's is not."""
    rows = undecoded(scenes.pairs(4), {"image"})
    samples = PairSamples(rows, processor, 0.5, 0)
    drawn = [samples[index] for index in range(4)]
    drawn[0]["view_a"] = Image.radial_gradient("L").convert("RGB")  # all levels
    batch = samples.collate(drawn)
    assert batch["view_a"].dtype == batch["view_b"].dtype == torch.uint8
    floats = {
        name: processor(images=[sample[name] for sample in drawn], return_tensors="pt").pixel_values
        for name in ("view_a", "view_b")
    }
    expected = encode_pairs(model.eval(), {**batch, **floats})
    found = Encoder(TrainingConfig(), processor)(model, batch)
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())
