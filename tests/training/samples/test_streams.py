"""Training from streams: every row is read once an epoch, by one reader, and a resumed run reads on where it stood."""

import json
import shutil
import signal
import subprocess
import sys
import time
from itertools import islice
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from accelerate import Accelerator, debug_launcher
from datasets import IterableDataset, concatenate_datasets
from safetensors.torch import load_file
from torch.utils.data import DataLoader

import train_accelerate
from m2c.data import scenes
from m2c.data.loading import ROW_NAME, each_row, load_stream
from m2c.training import TrainingConfig
from m2c.training.batches import StreamedBatches
from m2c.training.samples import streams
from m2c.training.samples.images import PairSamples
from m2c.training.samples.streams import StreamedSamples, hold_out

from ...data.shards import rows_of, write_parquet, write_tars


NUM_ROWS, NUM_SHARDS = 36, 6
NUMBERS = sorted(map(str, range(NUM_ROWS)))


@pytest.fixture(scope="module")
def parquet(tmp_path_factory) -> Path:
    return write_parquet(scenes.pairs(NUM_ROWS), tmp_path_factory.mktemp("data") / "parquet", NUM_SHARDS)


@pytest.fixture(scope="module")
def numbered(tmp_path_factory) -> Path:
    """WebDataset shards whose captions are the numbers of the rows."""
    files = [{"png": row["image"], "txt": str(number)} for number, row in enumerate(rows_of(scenes.pairs(NUM_ROWS)))]
    return write_tars(files, tmp_path_factory.mktemp("data") / "tars", NUM_SHARDS)


class Captions:
    """Samples that are nothing but epoch and caption."""

    def __init__(self, rows: IterableDataset):
        self.rows, self.epoch = rows, 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def prepare(self, row: dict, index: str) -> tuple[int, str]:
        return self.epoch, row["caption"]

    def collate(self, samples: list[tuple[int, str]]) -> list[tuple[int, str]]:
        return samples


def caption_stream(folder: Path, **options) -> StreamedSamples:
    stream = load_stream(str(folder), {"image": "png", "caption": "txt"}, {"image"}, None, "train")
    return StreamedSamples(Captions(stream), TrainingConfig(dataset=str(folder), streaming=True, shuffle_buffer=8, **options))


def read(samples: StreamedSamples, num_batches: int) -> list[list[tuple[int, str]]]:
    """Epochs and captions that each worker reads, in order."""
    workers = max(samples.num_workers, 1)
    loader = DataLoader(samples, batch_size=None, num_workers=samples.num_workers)
    batches = list(islice(loader, num_batches * workers))
    return [[sample for batch in batches[worker::workers] for sample in batch] for worker in range(workers)]


def as_process(monkeypatch, index: int, processes: int) -> None:
    monkeypatch.setattr(streams, "PartialState", lambda: SimpleNamespace(process_index=index, num_processes=processes))


@pytest.mark.parametrize(("processes", "workers"), [(1, 0), (1, 2), (2, 0), (2, 3), (4, 1)])
def test_readers_share_the_rows(numbered, monkeypatch, processes, workers):
    """In every epoch all rows are read, each by the same one of all readers, in another order."""
    most = NUM_ROWS // NUM_SHARDS * -(-NUM_SHARDS // (processes * max(workers, 1)))
    readers = []
    for process in range(processes):
        as_process(monkeypatch, process, processes)
        readers += read(caption_stream(numbered, batch_size=1, num_workers=workers), 2 * most)
    epochs = [[[caption for at, caption in reader if at == epoch] for reader in readers] for epoch in (0, 1)]
    for orders in epochs:
        assert sorted(caption for order in orders for caption in order) == NUMBERS
    for first, second in zip(*epochs):
        assert sorted(first) == sorted(second) and first != second
        assert first != sorted(first, key=int)


def test_fewer_shards_than_processes(numbered, tmp_path, monkeypatch):
    shutil.copy(numbered / "train-000.tar", tmp_path)
    captions = []
    for process in range(3):
        as_process(monkeypatch, process, 3)
        samples = caption_stream(tmp_path, batch_size=2, num_workers=4)
        assert samples.num_workers == 1
        captions += [caption for _, caption in read(samples, 1)[0]]
    assert sorted(captions) == NUMBERS[:1] + sorted(map(str, range(1, 6)))


def test_one_file_of_parquet_has_workers_for_its_row_groups(tmp_path):
    scenes.pairs(12).to_parquet(tmp_path / "train.parquet", batch_size=4)
    stream = load_stream(str(tmp_path), {"image": "image", "caption": "caption"}, {"image"}, None, "train")
    samples = SimpleNamespace(rows=stream)
    assert stream.num_shards == 1
    assert StreamedSamples(samples, TrainingConfig(dataset="x", streaming=True, num_workers=3)).num_workers == 3


def test_a_batch_holds_no_row_twice_and_no_two_epochs(numbered):
    """Of 36 rows four batches of eight are made; what is left out differs between epochs."""
    (reader,) = read(caption_stream(numbered, batch_size=8), 12)
    left_out = []
    for start in range(0, 96, 32):
        epoch = reader[start : start + 32]
        assert len({at for at, _ in epoch}) == 1 and len({caption for _, caption in epoch}) == 32
        left_out.append(set(NUMBERS) - {caption for _, caption in epoch})
    assert left_out[0] != left_out[1]


def test_the_seed_decides_the_order(numbered):
    first, same, other = (read(caption_stream(numbered, batch_size=4, seed=seed), 4) for seed in (1, 1, 2))
    assert first == same != other


@pytest.fixture
def batches(parquet, processor):
    """Batches of pairs in the form in which a run gets them."""

    def make(num_workers: int, folder: Path = parquet, **options) -> StreamedBatches:
        options = {"batch_size": 4, "shuffle_buffer": 8, "horizontal_flip": 0.5, **options}
        config = TrainingConfig(dataset=str(folder), streaming=True, num_workers=num_workers, **options)
        stream = load_stream(str(folder), {"image": "image", "caption": "caption"}, {"image"}, None, "train")
        samples = PairSamples(stream, processor, config.horizontal_flip, config.seed)
        return StreamedBatches(StreamedSamples(samples, config), config, Accelerator())

    return make


@pytest.mark.parametrize("num_workers", [0, 2])
def test_batches_since_a_step_are_those_that_would_have_come(batches, num_workers):
    """Also in the middle of a turn of the workers, and in the second epoch."""
    all_batches = list(islice(batches(num_workers).since(0), 13))
    for step in (1, 4, 11):
        for expected, batch in zip(all_batches[step:], batches(num_workers).since(step)):
            assert expected.keys() == batch.keys()
            assert all(torch.equal(tensor, batch[name]) for name, tensor in expected.items())


def test_what_is_passed_over_is_not_decoded(batches, monkeypatch):
    prepared = []
    prepare = PairSamples.prepare
    monkeypatch.setattr(PairSamples, "prepare", lambda self, *args: (prepared.append(1), prepare(self, *args))[1])
    next(batches(0).since(11))
    assert len(prepared) == 4


def test_each_epoch_augments_anew(batches, tmp_path):
    """A data set of one row, which has the same place in every epoch."""
    folder = write_parquet(scenes.pairs(1), tmp_path / "one", 1)
    first, second = islice(batches(0, folder, batch_size=1).since(0), 2)
    assert torch.equal(first["caption_ids"], second["caption_ids"])
    assert not torch.equal(first["view_a"], second["view_a"])


@pytest.mark.parametrize("num_workers", [0, 2])
def test_an_epoch_without_a_batch_is_an_error(batches, num_workers):
    rows = NUM_ROWS // max(num_workers, 1)
    with pytest.raises(ValueError, match=f"--batch_size {rows + 1} is more than the {rows} rows of a process that reads"):
        next(batches(num_workers, batch_size=rows + 1).since(0))


def test_no_more_workers_than_shards(batches, capsys):
    many = batches(20)
    assert many.samples.num_workers == NUM_SHARDS
    assert "workers that stream: 6 of 20, as there are no more shards" in capsys.readouterr().out


def test_held_out_rows_are_not_trained_on(tmp_path):
    """Nor are rows that equal one of them; a shard that has no other rows does no harm."""
    rows = concatenate_datasets([scenes.pairs(9), scenes.pairs(2)])
    folder = write_parquet(rows, tmp_path / "twins", 4)
    stream = load_stream(str(folder), {"image": "image", "caption": "caption"}, {"image"}, None, "train")
    rest, held_out = hold_out(stream, 3)
    expected = rows_of(rows)
    assert rows_of(held_out.remove_columns(ROW_NAME)) == expected[:3]
    assert held_out[0][ROW_NAME] == repr(expected[0]["caption"][:60]), "as in the stream, for messages"
    assert [row["image"]["bytes"] for row in each_row(rest)] == [row["image"] for row in expected[3:9]]
    with pytest.raises(ValueError, match="--validation_size 11 leaves nothing of 11 rows"):
        hold_out(stream, 11)


def read_in_process(folder: Path, out: Path) -> None:
    state = Accelerator(cpu=True)
    (captions,) = read(caption_stream(folder, batch_size=3, num_workers=1), 6)
    answer = {"processes": state.num_processes, "captions": [caption for _, caption in captions]}
    (out / f"{state.process_index}.json").write_text(json.dumps(answer))


def test_two_processes_read_different_rows(numbered, tmp_path):
    debug_launcher(read_in_process, (numbered, tmp_path), num_processes=2)
    one, two = (json.loads((tmp_path / f"{index}.json").read_text()) for index in (0, 1))
    assert one["processes"] == two["processes"] == 2
    assert sorted(one["captions"] + two["captions"]) == NUMBERS


ARGUMENTS = ["--streaming", "--batch_size", 4, "--shuffle_buffer", 8, "--max_steps", 12, "--log_steps", 1]
SMALL = ["--mapper_hidden_size", 16, "--injection_hidden_size", 16]


def run(*arguments) -> int:
    return train_accelerate.main([*map(str, arguments)])


def assert_same_weights(one: Path, other: Path) -> None:
    first, second = load_file(one / "model.safetensors"), load_file(other / "model.safetensors")
    assert first.keys() == second.keys()
    for name, tensor in first.items():
        assert torch.equal(tensor, second[name]), name


@pytest.mark.parametrize("num_workers", [0, 2])
def test_resumed_is_uninterrupted(parquet, clip_path, tmp_path, num_workers):
    """Step 7 lies within an epoch, and is not the first worker's turn."""
    arguments = [*ARGUMENTS, *SMALL, "--dataset", parquet, "--model", clip_path, "--num_workers", num_workers]
    arguments += ["--checkpoint_steps", 7, "--horizontal_flip", 0.5]
    assert run(*arguments, "--output_dir", tmp_path / "whole") == 0
    resumed = tmp_path / "resumed"
    resumed.mkdir()
    checkpoint = shutil.copytree(tmp_path / "whole/checkpoints/step_000007", resumed / "checkpoints/step_000007")
    assert run(*arguments, "--output_dir", resumed, "--resume", checkpoint) == 0
    assert_same_weights(tmp_path / "whole", resumed)
    assert json.loads((resumed / "training.json").read_text())["training_rows"] is None


def test_killed_and_resumed_is_uninterrupted(parquet, clip_path, tmp_path):
    arguments = [*ARGUMENTS, *SMALL, "--dataset", parquet, "--model", clip_path, "--num_workers", 2, "--checkpoint_steps", 3]
    assert run(*arguments, "--output_dir", tmp_path / "whole") == 0
    out = tmp_path / "killed"
    command = [sys.executable, train_accelerate.__file__, *arguments, "--output_dir", out]
    with subprocess.Popen([*map(str, command)], stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as process:
        while not (out / "checkpoints/step_000003").exists():
            assert process.poll() is None
            time.sleep(0.01)
        process.kill()
    assert process.returncode == -signal.SIGKILL
    assert run(*arguments, "--output_dir", out, "--resume") == 0
    assert_same_weights(tmp_path / "whole", out)


def test_a_resumed_run_keeps_its_workers(parquet, clip_path, tmp_path, capsys):
    arguments = [*ARGUMENTS, *SMALL, "--dataset", parquet, "--model", clip_path, "--max_steps", 1, "--checkpoint_steps", 1]
    assert run(*arguments, "--output_dir", tmp_path / "out") == 0
    resume = ["--resume", tmp_path / "out/checkpoints/step_000001"]
    assert run(*arguments, "--num_workers", 2, "--output_dir", tmp_path / "out", *resume) == 1
    assert "is of another run: num_workers was 0, is 2" in capsys.readouterr().err


def test_both_stages_with_validation(clip_path, tmp_path):
    pairs = [{"jpg": row["image"], "json": {"caption": row["caption"]}} for row in rows_of(scenes.pairs(12))]
    arguments = [*ARGUMENTS, "--max_steps", 2, "--validation_size", 3]
    columns = ["--image_column", "jpg", "--caption_column", "json.caption"]
    stage1 = [*SMALL, "--dataset", write_tars(pairs, tmp_path / "pairs", 2), *columns, "--model", clip_path]
    assert run(*arguments, *stage1, "--output_dir", tmp_path / "stage1") == 0
    triplets = [
        {"before.png": row["reference"], "after.png": row["target"], "txt": row["modification"]}
        for row in rows_of(scenes.triplets(12))
    ]
    columns = ["--reference_column", "before.png", "--target_column", "after.png", "--modification_column", "txt"]
    stage2 = ["--dataset", write_tars(triplets, tmp_path / "triplets", 2), *columns, "--reference_caption_column", "txt"]
    assert run(*arguments, "--stage", 2, *stage2, "--model", tmp_path / "stage1", "--output_dir", tmp_path / "stage2") == 0
    for out in (tmp_path / "stage1", tmp_path / "stage2"):
        assert "validation_recall@1" in json.loads((out / "training.json").read_text())


def test_captions_alone_can_be_streamed(clip_path, tmp_path):
    captions = [{"txt": row["caption"]} for row in rows_of(scenes.pairs(12))]
    arguments = [*ARGUMENTS, "--max_steps", 2, "--objective", "text_only", "--caption_column", "txt", "--num_workers", 2]
    dataset = write_tars(captions, tmp_path / "captions", 2)
    arguments += ["--mapper_hidden_size", 16, "--dataset", dataset, "--model", clip_path]
    assert run(*arguments, "--output_dir", tmp_path / "out") == 0


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_damaged_image_ends_the_run_and_is_named(clip_path, tmp_path, capsys, num_workers):
    rows = [{"png": row["image"], "txt": row["caption"]} for row in rows_of(scenes.pairs(12))]
    rows[10]["png"] = b"not an image"
    arguments = [*ARGUMENTS, *SMALL, "--dataset", write_tars(rows, tmp_path / "tars", 3), "--num_workers", num_workers]
    columns = ["--image_column", "png", "--caption_column", "txt"]
    assert run(*arguments, *columns, "--model", clip_path, "--output_dir", tmp_path / "out") == 1
    message = capsys.readouterr().err.splitlines()[-1]
    assert message.startswith("error: row '000010' (train-002.tar) of the data set has an unreadable image in column 'image'")
    assert "check the file" in message


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dataset": "scenes"}, "--streaming needs a --dataset"),
        ({"cached_views": 1}, "--streaming goes without --cached_views"),
        ({"max_samples": 5}, "leave out --max_samples"),
        ({"shuffle_buffer": 0}, "--shuffle_buffer must be positive"),
    ],
)
def test_what_does_not_go_with_streaming(options, message):
    with pytest.raises(ValueError, match=message):
        TrainingConfig(**{"dataset": "some/pairs", "streaming": True, **options})
