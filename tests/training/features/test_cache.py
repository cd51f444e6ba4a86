"""Stored features are those that would be encoded, once, whoever encodes them and whatever happens meanwhile."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from datasets import Dataset, Features, Image, Value
from filelock import FileLock
from safetensors import SafetensorError
from safetensors.torch import save_file

from m2c import feature_files
from m2c.checkpoints import load_model
from m2c.training import TrainingConfig
from m2c.training.features import cache as feature_cache
from m2c.training.features.cache import FeatureCache
from m2c.training.features.encoding import Encoder, widen

from .rows import PAIRS, ROWS, SHARDS, TEXTS, pair_samples, triplet_samples


class Counting(FeatureCache):
    """A cache that counts the rows which it encodes."""

    def __init__(self, config, model, processor):
        self.count, plain_encode = 0, Encoder(config, processor)

        def encode(model, batch):
            self.count += len(batch["caption_ids"])
            return plain_encode(model, batch)

        super().__init__(config, model, encode)


@pytest.fixture
def make_cache(model, processor, tmp_path):
    def make(stage: int = 1, model=model, **config) -> Counting:
        return Counting(TrainingConfig(stage=stage, cache_dir=str(tmp_path / "cache"), **config), model, processor)

    return make


def files(tmp_path: Path) -> dict[str, Path]:
    return {path.name: path for path in sorted((tmp_path / "cache").rglob("*.safetensors"))}


def shards_in(tmp_path: Path) -> list[str]:
    """Names of the stored shards, less the digests of their rows."""
    return [re.fullmatch(r"(view\d-\d{5})-[0-9a-f]{32}\.safetensors", name)[1] for name in files(tmp_path)]


def direct(model, samples, stage: int, view: int = 0) -> dict[str, torch.Tensor]:
    """Every row by the plain way, in the batches of the cache, through half precision."""
    samples.set_epoch(view)
    batches = []
    for start in range(0, len(samples), 2):
        rows = [samples[index] for index in range(start, min(start + 2, len(samples)))]
        batches.append(Encoder(TrainingConfig(stage=stage), samples.processor)(model, samples.collate(rows)))
    names = [name for name, tensor in batches[0].items() if tensor.is_floating_point()]
    return {name: torch.cat([batch[name] for batch in batches]).half() for name in names}


@pytest.mark.parametrize("stage", [1, 2])
def test_stored_features_are_those_of_the_towers(make_cache, processor, model, stage):
    samples = pair_samples(processor) if stage == 1 else triplet_samples(processor)
    random_state = torch.get_rng_state()
    features = make_cache(stage).features_of(samples, 1)
    assert torch.equal(torch.get_rng_state(), random_state), "what training draws must not depend on what was stored before"
    order = [7, 0, 10, 7, 3]
    batch, expected = features.__getitems__(order), direct(model, samples, stage)
    assert len(features) == ROWS
    for name, tensor in expected.items():
        assert batch[name].dtype == torch.float16 and torch.equal(batch[name], tensor[order]), name
    widened = widen(batch)
    assert all(torch.equal(widened[name], tensor[order].float()) for name, tensor in expected.items())
    assert all(widened[name].dtype == batch[name].dtype for name in set(batch) - set(expected))
    prompt = {name: batch[name] for name in set(batch) - set(expected)}
    if stage == 1:
        assert not prompt
    else:
        fresh = processor.composed_prompt([TEXTS[row] for row in order], return_tensors="pt")
        assert prompt.keys() == fresh.keys() and all(torch.equal(prompt[name], fresh[name]) for name in fresh)
        assert prompt["attention_mask"].sum(dim=1).max() == prompt["input_ids"].shape[1], "as long as the longest of the batch"


def test_a_model_without_injection_has_features_too(make_cache, make_config, processor):
    model = type(make_cache().model)(make_config(injection_layers=[])).eval()
    batch = make_cache(2, model).features_of(triplet_samples(processor), 1).__getitems__([2, 1])
    assert batch["keys_values"].shape == (2, 0) and batch["pseudo_word"].shape == (2, 32)


def test_views_take_turns_by_epoch(make_cache, processor, model):
    samples = pair_samples(processor)
    cache = make_cache()
    features = cache.features_of(samples, 2)
    assert cache.count == 2 * ROWS + 1, "one row to estimate the size by"
    views = [direct(model, samples, 1, view) for view in range(2)]
    assert not torch.equal(views[0]["image_tokens"], views[1]["image_tokens"])
    for epoch, view in enumerate([0, 1, 0, 1]):
        features.set_epoch(epoch)
        assert torch.equal(features.__getitems__(list(range(ROWS)))["image_tokens"], views[view]["image_tokens"])


def test_what_is_there_is_not_encoded_again(make_cache, processor, tmp_path, capsys):
    make_cache().features_of(pair_samples(processor), 1)
    line = capsys.readouterr().out
    assert f"features of {ROWS} rows, views: 1, take" in line and "GB free" in line
    assert len(files(tmp_path)) == SHARDS
    (about,) = (tmp_path / "cache").rglob("about.json")
    assert json.loads(about.read_text())["model"] == make_cache().config.model
    again = make_cache()
    again.features_of(pair_samples(processor), 1)
    assert again.count == 0 and capsys.readouterr().out == ""
    more = make_cache()
    more.features_of(pair_samples(processor), 2)
    assert more.count == ROWS + 1, "another view is added to the first"


def test_a_truncated_shard_is_encoded_again(make_cache, processor, model, tmp_path):
    make_cache().features_of(pair_samples(processor), 1)
    whole = {name: path.read_bytes() for name, path in files(tmp_path).items()}
    names = list(whole)
    for broken in (whole[names[1]][:-1], whole[names[1]][:4], b"", b"<html>" * 90, whole[names[2]]):
        files(tmp_path)[names[1]].write_bytes(broken)
        untouched = files(tmp_path)[names[0]].stat().st_mtime_ns
        cache = make_cache()
        cache.features_of(pair_samples(processor), 1)
        assert cache.count == 4 + 1
        assert {name: path.read_bytes() for name, path in files(tmp_path).items()} == whole
        assert files(tmp_path)[names[0]].stat().st_mtime_ns == untouched


def read_all(features, view: int = 0) -> dict[str, torch.Tensor]:
    features.set_epoch(view)
    return features.__getitems__(list(range(len(features))))


def assert_fresh(features, model, samples, num_views: int = 1) -> None:
    """Features are what the towers make of these samples now."""
    for view in range(num_views):
        stored = read_all(features, view)
        assert all(torch.equal(stored[name], tensor) for name, tensor in direct(model, samples, 1, view).items())


@pytest.fixture(params=["bytes", "files"])
def pictures(request, tmp_path):
    """Pairs whose picture can be changed, inside of the data set or as a file."""
    rows = PAIRS.to_list()
    if request.param == "files":
        (tmp_path / "images").mkdir()
        for index, row in enumerate(rows):
            path = tmp_path / "images" / f"{index}.png"
            path.write_bytes(row["image"]["bytes"])
            row["image"] = {"bytes": None, "path": str(path)}

    def change(index: int, content: bytes) -> None:
        if request.param == "files":
            Path(rows[index]["image"]["path"]).write_bytes(content)
        else:
            rows[index]["image"]["bytes"] = content

    features = Features({"image": Image(decode=False), "caption": Value("string")})
    return SimpleNamespace(change=change, rows=lambda: Dataset.from_list(rows, features=features))


def test_a_changed_image_costs_its_own_shard_and_no_other(make_cache, processor, model, pictures, tmp_path):
    make_cache().features_of(pair_samples(processor, pictures.rows()), 2)
    before = set(files(tmp_path))
    pictures.change(5, PAIRS[0]["image"]["bytes"])
    cache, samples = make_cache(), pair_samples(processor, pictures.rows())
    features = cache.features_of(samples, 2)
    assert cache.count == 1 + 2 * 4, "two views of a shard, and one row to estimate the size by"
    assert_fresh(features, model, samples, num_views=2)
    assert before < set(files(tmp_path)) and len(set(files(tmp_path)) - before) == 2


def test_an_unreadable_image_is_named_and_the_rest_is_kept_until_it_is_mended(make_cache, processor, model, pictures, tmp_path):
    pictures.change(9, b"<html>")
    with pytest.raises(ValueError, match="row 9 of the data set has an unreadable image in column 'image'"):
        make_cache().features_of(pair_samples(processor, pictures.rows()), 1)
    assert shards_in(tmp_path) == ["view0-00000", "view0-00001"]
    pictures.change(9, PAIRS[9]["image"]["bytes"])
    cache, samples = make_cache(), pair_samples(processor, pictures.rows())
    features = cache.features_of(samples, 1)
    assert cache.count == 1 + 3 and len(files(tmp_path)) == SHARDS, "no dead file is left"
    assert_fresh(features, model, samples)


def test_more_rows_cost_what_is_new(make_cache, processor, model, tmp_path):
    make_cache().features_of(pair_samples(processor, PAIRS.select(range(9))), 1)
    cache, samples = make_cache(), pair_samples(processor)
    features = cache.features_of(samples, 1)
    assert cache.count == 1 + 3, "the last shard has more rows now"
    assert_fresh(features, model, samples)
    again = make_cache()
    again.features_of(pair_samples(processor, PAIRS.select(range(9))), 1)
    assert again.count == 0, "the shorter one is still there"


def test_the_same_rows_at_another_place_are_augmented_otherwise(make_cache, processor, model):
    make_cache().features_of(pair_samples(processor), 1)
    cache, samples = make_cache(), pair_samples(processor, PAIRS.select(range(4, 8)))
    features = cache.features_of(samples, 1)
    assert cache.count == 1 + 4
    assert_fresh(features, model, samples)


def test_more_than_the_limit_is_refused_before_anything_is_encoded(make_cache, processor, tmp_path):
    cache = make_cache(cache_limit_gb=1e-6)
    with pytest.raises(ValueError, match=r"--cache_limit_gb 1e-06.*--cached_views \(0.*--patch_grid") as error:
        cache.features_of(pair_samples(processor), 1)
    assert cache.count == 1 and not files(tmp_path)
    assert f"features of {ROWS} rows, views: 1, take 0.000 GB" in str(error.value)
    make_cache().features_of(pair_samples(processor), 1)
    size = sum(path.stat().st_size for path in files(tmp_path).values()) / 1e9
    make_cache(cache_limit_gb=1e-6).features_of(pair_samples(processor), 1)
    with pytest.raises(ValueError, match="--cache_limit_gb"):
        make_cache(cache_limit_gb=1.5 * size).features_of(pair_samples(processor), 2)
    make_cache(cache_limit_gb=2 * size).features_of(pair_samples(processor), 2)


def test_too_little_space_is_refused_and_what_is_there_is_deducted(make_cache, processor, tmp_path, monkeypatch):
    make_cache().features_of(pair_samples(processor), 1)
    size = sum(path.stat().st_size for path in files(tmp_path).values())
    space = SimpleNamespace(free=0.9 * size / SHARDS)
    monkeypatch.setattr(feature_cache.shutil, "disk_usage", lambda path: space)
    cache = make_cache()
    with pytest.raises(OSError, match=r"--cached_views.*--patch_grid.*another --cache_dir"):
        cache.features_of(pair_samples(processor), 2)
    assert cache.count == 1
    list(files(tmp_path).values())[2].unlink()
    make_cache().features_of(pair_samples(processor), 1)  # three rows of eleven fit


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), SafetensorError("No space left on device")])
def test_a_disk_that_fills_up_keeps_what_is_finished(make_cache, processor, tmp_path, monkeypatch, error):
    def full(tensors, path, metadata):
        if files(tmp_path):
            path.write_bytes(b"half")
            raise error
        save_file(tensors, path, metadata)

    with monkeypatch.context() as patch:
        patch.setattr(feature_files, "save_file", full)
        with pytest.raises(OSError, match=r"features cannot be stored in .*: .*No space left.*another --cache_dir"):
            make_cache().features_of(pair_samples(processor), 1)
    assert len(files(tmp_path)) == 1 and not list(tmp_path.rglob("*.partial"))
    cache = make_cache()
    cache.features_of(pair_samples(processor), 1)
    assert cache.count == 1 + ROWS - 4


def test_a_folder_that_cannot_be_is_named(make_cache, processor, tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(OSError, match=r"features cannot be stored in .*file.*choose another --cache_dir"):
        cache = make_cache()
        cache.config.cache_dir = str(tmp_path / "file")
        cache.features_of(pair_samples(processor), 1)


@pytest.mark.parametrize("value", [7e4, torch.nan])
def test_what_does_not_fit_into_half_precision_is_an_error(make_cache, processor, model, tmp_path, value):
    cache = make_cache()
    encode = cache.encode

    def overflow(model, batch):
        features = encode(model, batch)
        if cache.count == 1 + 4 + 2:  # the second batch of the second shard is still to come
            features["image_tokens"][1, 3, 2] = value
        return features

    cache.encode = overflow
    with pytest.raises(ValueError, match=r"image_tokens of row 5 .*not finite in half precision.*--cached_views 0"):
        cache.features_of(pair_samples(processor), 1)
    assert shards_in(tmp_path) == ["view0-00000"]


def test_of_two_runs_one_encodes_and_the_other_waits(make_cache, processor, tmp_path, capsys, monkeypatch):
    """And keeps in touch with the other processes of its own run, which would take it for lost."""
    turns, on_main = [], feature_cache.on_main
    monkeypatch.setattr(feature_cache, "TURN_SECONDS", 0.01)
    monkeypatch.setattr(feature_cache, "on_main", lambda action: (turns.append(action), on_main(action))[1])
    make_cache().features_of(pair_samples(processor), 1)
    (folder,) = {path.parent for path in files(tmp_path).values()}
    missing = list(files(tmp_path).values())[1]
    content = missing.read_bytes()
    missing.unlink()
    cache = make_cache()
    other = threading.Thread(target=cache.features_of, args=(pair_samples(processor), 1))
    with FileLock(folder / ".lock"):
        other.start()
        deadline = time.time() + 60
        while "another run is storing features in" not in capsys.readouterr().out:
            assert time.time() < deadline
            time.sleep(0.01)
        heard = len(turns)
        while len(turns) < heard + 3:
            assert time.time() < deadline
            time.sleep(0.01)
        missing.write_bytes(content)
    other.join(timeout=60)
    assert not other.is_alive() and cache.count == 0


def test_a_whole_cache_needs_no_writing(make_cache, processor, tmp_path):
    make_cache().features_of(pair_samples(processor), 1)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").rglob("*")}
    make_cache().features_of(pair_samples(processor), 1)
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").rglob("*")} == before


def launch(*arguments, processes: int = 1) -> subprocess.CompletedProcess:
    """Encodes in processes of their own."""
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", processes] if processes > 1 else []
    command = [*map(str, (sys.executable, *launcher, Path(__file__).with_name("encoder.py"), *arguments))]
    environment = {**os.environ, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment)


def test_two_processes_store_what_one_does_and_each_shard_once(clip_path, processor, make_cache, tmp_path):
    model = load_model(str(clip_path)).eval()
    alone = make_cache(model=model)
    alone.features_of(pair_samples(processor), 2)
    expected = {name: path.read_bytes() for name, path in files(tmp_path).items()}
    (tmp_path / "cache").rename(tmp_path / "alone")
    done = launch(clip_path, tmp_path / "cache", processes=2)
    assert done.returncode == 0, done.stderr
    assert {name: path.read_bytes() for name, path in files(tmp_path).items()} == expected
    wrote = re.findall(r"process (\d) stored (\d) (\d)", done.stdout)
    assert sorted(shard for _, *shard in wrote) == [[str(view), str(number)] for view in range(2) for number in range(SHARDS)]
    assert {rank for rank, *_ in wrote} == {"0", "1"}
    assert sorted(re.findall(r"process (\d) of 2 sees (\d+) rows", done.stdout)) == [("0", str(ROWS)), ("1", str(ROWS))]


def test_a_killed_run_goes_on_where_it_was(clip_path, processor, make_cache, tmp_path):
    done = launch(clip_path, tmp_path / "cache", "die")
    assert done.returncode == -signal.SIGKILL
    assert len(files(tmp_path)) == 4 and len(list(tmp_path.rglob("*.partial"))) == 1
    model = load_model(str(clip_path)).eval()
    cache, samples = make_cache(model=model), pair_samples(processor)
    features = cache.features_of(samples, 2)
    assert cache.count == 1 + 2 * ROWS - (ROWS + 4) and not list(tmp_path.rglob("*.partial"))
    features.set_epoch(1)
    expected = direct(model, samples, 1, view=1)
    assert torch.equal(features.__getitems__(list(range(ROWS)))["image_tokens"], expected["image_tokens"])
