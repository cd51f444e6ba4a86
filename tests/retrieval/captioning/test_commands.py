"""`m2c caption` and `m2c texts`, as users call them."""

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time

import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from m2c.cli import app
from m2c.encoding.image_digests import ImageDigests
from m2c.retrieval.text_store import TextStore


@pytest.fixture
def images(tmp_path, picture):
    """a.png, sub/b.png, and c.png, which is the same as a.png."""
    folder = tmp_path / "images"
    (folder / "sub").mkdir(parents=True)
    picture(0).save(folder / "a.png")
    picture(1).save(folder / "sub" / "b.png")
    shutil.copy(folder / "a.png", folder / "c.png")
    return folder


@pytest.fixture
def run(monkeypatch, tmp_path):
    monkeypatch.setenv("M2C_CACHE", str(tmp_path / "cache"))
    return lambda *arguments: CliRunner().invoke(app, [*map(str, arguments)])


@pytest.fixture
def caption(run, images, blip_path):
    return lambda *arguments: run(
        "caption", images, "--captioner", blip_path, "--captions", 4, "--max_new_tokens", 8, *arguments
    )


def texts_of(folder) -> list[tuple]:
    return sorted((text.source["image"], text.source["number"], text.text) for text in TextStore(folder / "texts.sqlite").all())


def test_captions_are_stored_by_the_content_of_pictures(caption, images, tmp_path):
    done = caption()
    assert done.exit_code == 0, done.output
    assert "captions: 0 of 8 are there; 8 to write for 2 pictures" in done.stdout
    assert f"12 captions of 3 pictures are in {tmp_path / 'cache' / 'texts.sqlite'}" in done.stdout
    stored = texts_of(tmp_path / "cache")
    digests = ImageDigests(tmp_path / "other.sqlite").of_files([images / "a.png", images / "sub" / "b.png"])
    assert {(image, number) for image, number, _ in stored} == {(image, number) for image in digests for number in range(4)}
    (images / "a.png").rename(images / "renamed.png")
    again = caption("--batch_size", 1)
    assert again.exit_code == 0 and "to write" not in again.stdout and texts_of(tmp_path / "cache") == stored


def test_more_captions_add_to_fewer_and_another_batch_size_makes_the_same(caption, tmp_path):
    caption("--captions", 2)
    caption("--captions", 4, "--batch_size", 1)
    assert caption("--cache_dir", tmp_path / "other").exit_code == 0
    assert texts_of(tmp_path / "cache") == texts_of(tmp_path / "other")


def test_every_option_of_the_sampling_counts(caption, tmp_path):
    for options in ([], ["--seed", 1], ["--temperature", 0.5], ["--top_p", 0.5], ["--prompt", "a"], ["--max_new_tokens", 7]):
        caption(*options)
    store = TextStore(tmp_path / "cache" / "texts.sqlite")
    assert len({json.dumps(text.generator) for text in store.all()}) == 6


def test_a_picture_that_is_broken_is_named_and_the_others_are_stored(caption, images, tmp_path):
    (images / "broken.jpg").write_bytes(b"\xff\xd8 half a picture")
    done = caption()
    assert done.exit_code == 1 and "Traceback" not in done.output
    assert "error: 1 of 3 pictures have no caption: the image " in done.stderr and "broken.jpg cannot be read" in done.stderr
    assert len(texts_of(tmp_path / "cache")) == 8


def test_captions_of_another_commit_are_named_and_found_by_pinning_it(run, images, blip_path, downloaded, tmp_path):
    """Somebody edits a README on the Hub, which makes a new commit; the weights of the old one are nowhere any more."""
    first, second = "a" * 40, "b" * 40
    command = ["caption", images, "--captioner", "ana/blip", "--captions", 2, "--max_new_tokens", 8]
    old = downloaded(blip_path, "ana/blip", first)
    assert run(*command).exit_code == 0
    written = texts_of(tmp_path / "cache")
    (old / "model.safetensors").unlink()
    downloaded(blip_path, "ana/blip", second)
    pinned = run(*command, "--revision", first)
    assert pinned.exit_code == 0 and "revision" not in pinned.stdout and "to write" not in pinned.stdout
    assert texts_of(tmp_path / "cache") == written
    newest = run(*command)
    assert f"caption: 4 of ana/blip with these settings are from revision {first}, not {second}; " in newest.stdout
    assert f"--revision {first} finds them" in newest.stdout and len(texts_of(tmp_path / "cache")) == 8


def test_the_command_for_the_export_can_be_pasted(caption, run, images, tmp_path):
    assert "--cache_dir" not in caption().stdout
    moved, cache = images.rename(tmp_path / "my images"), tmp_path / "my cache"
    done = run("caption", moved, "--captioner", "scenes", "--captions", 1, "--cache_dir", cache)
    program, *arguments = shlex.split(done.stdout.splitlines()[-1])
    assert program == "m2c"
    arguments[arguments.index("captions.parquet")] = tmp_path / "captions.parquet"
    assert run(*arguments).stdout.startswith("Wrote 2 texts"), done.output


def test_what_cannot_be_is_one_line_before_any_work(run, images, caption, tmp_path):
    (tmp_path / "file").touch()
    for done, message in (
        (run("caption", tmp_path / "gone", "--captioner", "scenes"), "gone is no folder"),
        (run("caption", images, "--captioner", "./nothing"), "cannot load a captioner from './nothing'"),
        (caption("--top_p", 2), "top_p of captions is above 0"),
        (caption("--cache_dir", tmp_path / "file"), "file"),
        (run("texts", "import", tmp_path / "gone.parquet"), "there is no file"),
        (run("texts", "export", tmp_path / "out.csv"), ".parquet or .jsonl"),
    ):
        assert done.exit_code == 1 and done.stderr.startswith("error: ") and message in done.stderr, done.output
        assert done.stderr.count("\n") == 1 and not done.stdout


def test_captions_travel_with_the_names_of_their_pictures(caption, run, images, blip_path, tmp_path):
    caption()
    out = tmp_path / "captions.parquet"
    assert run("texts", "export", out, "--images", images).stdout == f"Wrote 8 texts to {out}\n"
    rows = pq.read_table(out).to_pylist()
    assert [row["file_name"] for row in rows] == ["a.png"] * 4 + ["sub/b.png"] * 4
    assert {(row["kind"], row["model"]) for row in rows} == {("caption", "blip")}
    assert str(tmp_path) not in json.dumps(rows)
    other = ["--cache_dir", tmp_path / "other"]
    assert run("texts", "import", out, *other).stdout.startswith("8 texts are new in ")
    assert run("texts", "import", out, *other).stdout.endswith(", 8 were known\n")
    assert texts_of(tmp_path / "other") == texts_of(tmp_path / "cache")
    assert "to write" not in caption(*other).stdout, "what was imported need not be written"
    assert run("texts", "export", tmp_path / "none.jsonl", "--kind", "edited caption").exit_code == 1
    assert run("texts", "export", tmp_path / "all.jsonl", "--model", "blip").stdout.startswith("Wrote 8 texts")


def test_interrupted_it_says_that_nothing_is_lost(images, blip_path, picture, tmp_path):
    """By a real Ctrl-C."""
    for number in range(60):
        picture(100 + number).save(images / f"{number}.png")
    command = [
        "-m",
        "m2c.cli",
        "caption",
        images,
        "--captioner",
        blip_path,
        "--batch_size",
        1,
        "--cache_dir",
        tmp_path / "cache",
    ]
    path = tmp_path / "cache" / "texts.sqlite"
    with subprocess.Popen([sys.executable, *map(str, command)], stderr=subprocess.PIPE, text=True) as process:
        while process.poll() is None and not (path.exists() and path.stat().st_size and list(TextStore(path).all())):
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        said = process.communicate(timeout=60)[1]
    assert process.returncode == 130 and "Traceback" not in said
    assert said.splitlines()[-1].startswith("interrupted; the captions that were written are kept")
    assert 0 < len(texts_of(tmp_path / "cache")) < 62 * 15 and len(texts_of(tmp_path / "cache")) % 15 == 0


@pytest.mark.slow
def test_two_processes_write_what_one_writes(caption, images, blip_path, picture, tmp_path):
    for number in range(5):
        picture(100 + number).save(images / f"{number}.png")
    assert caption().exit_code == 0
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    command = ["-m", "m2c.cli", "caption", images, "--captioner", blip_path, "--captions", 4, "--max_new_tokens", 8]
    options = ["--batch_size", 2, "--cache_dir", tmp_path / "two"]
    environment = {**os.environ, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    (images / "broken.png").write_bytes(b"")
    arguments = [*map(str, [*launcher, *command, *options])]
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=120, env=environment)
    assert done.returncode == 1 and "1 of 8 pictures have no caption: the image " in done.stderr
    assert done.stdout.count("0 of 32 are there; 32 to write for 8 pictures") == 1, "one process speaks for all"
    assert texts_of(tmp_path / "two") == texts_of(tmp_path / "cache")
