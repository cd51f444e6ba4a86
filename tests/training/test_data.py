"""Runs on the data of users, good and bad."""

import errno
import json

import pytest
import torch
from datasets import Dataset
from PIL import Image

from m2c.data import scenes
from m2c.data.image_folder import write_image_folder
from m2c.training.samples.images import PairSamples

from .runs import assert_same_log, assert_same_weights, on_folder, run


def test_image_folder(pairs_folder, clip_path, tmp_path):
    assert on_folder(pairs_folder, clip_path, tmp_path) == 0
    record = json.loads((tmp_path / "out" / "training.json").read_text())
    assert record["training_rows"] == 10 and record["config"]["learning_rate"] == 1e-4


def test_other_column_names_and_paths_of_images(pairs_folder, clip_path, tmp_path):
    """A parquet-like data set saved by `save_to_disk` that holds paths instead of images."""
    paths = [str(path) for path in sorted((pairs_folder / "image").iterdir())]
    Dataset.from_dict({"jpg": paths, "txt": ["a red circle"] * 10, "extra": [0] * 10}).save_to_disk(tmp_path / "saved")
    assert on_folder(tmp_path / "saved", clip_path, tmp_path, "--image_column", "jpg", "--caption_column", "txt") == 0


def test_triplets_of_a_folder(stage1, tmp_path):
    folder = write_image_folder(scenes.triplets(8), tmp_path / "triplets")
    assert on_folder(folder, stage1, tmp_path, "--stage", 2) == 0


def test_a_missing_column_is_named(pairs_folder, clip_path, tmp_path, capsys):
    assert on_folder(pairs_folder, clip_path, tmp_path, "--caption_column", "text") == 1
    message = capsys.readouterr().err
    assert "has no column 'text'; it has caption, image" in message or "has no column 'text'; it has image, caption" in message
    assert "--caption_column" in message
    assert on_folder(pairs_folder, clip_path, tmp_path) == 0, "and the right one needs no other folder"
    assert len(json.loads((tmp_path / "out" / "run.json").read_text())) == 2, "though both starts are recorded"


@pytest.mark.parametrize("workers", [0, 1])
def test_a_row_that_is_mended_costs_no_step(pairs_folder, clip_path, tmp_path, capsys, workers):
    """What was done before the row came up is saved, and the run goes on from there as if nothing had been wrong."""
    arguments = ["--max_steps", 7, "--cached_views", 0, "--num_workers", workers]
    assert on_folder(pairs_folder, clip_path, tmp_path, *arguments) == 0
    whole, out = (tmp_path / "out").rename(tmp_path / "whole"), tmp_path / "out"
    image = pairs_folder / "image" / f"{row_of_the_third_step():06d}.png"
    content = image.read_bytes()
    image.write_bytes(b"not an image")
    assert on_folder(pairs_folder, clip_path, tmp_path, *arguments) == 1
    message = capsys.readouterr().err
    assert "no batch could be read after step 2; once that is mended, go on from there with --resume" in message
    assert "unreadable image" in message and "Traceback" not in message
    assert on_folder(pairs_folder, clip_path, tmp_path, *arguments, "--resume") == 1
    assert [path.name for path in (out / "checkpoints").iterdir()] == ["step_000002"]
    image.write_bytes(content)
    assert on_folder(pairs_folder, clip_path, tmp_path, *arguments, "--resume") == 0
    assert_same_weights(whole, out)
    assert_same_log(whole, out)


def row_of_the_third_step() -> int:
    """A row of the second epoch's first batch that the first epoch, of two batches of four rows, leaves out."""
    first, second = (torch.randperm(10, generator=torch.Generator().manual_seed(epoch)).tolist() for epoch in range(2))
    return next(row for row in second[:4] if row not in first[:8])


@pytest.mark.parametrize("arguments", [["--cached_views", 1], [], ["--num_workers", 1]])
def test_an_unreadable_image_is_named(pairs_folder, clip_path, tmp_path, capsys, arguments):
    (pairs_folder / "image" / "000007.png").write_bytes(b"not an image")
    assert on_folder(pairs_folder, clip_path, tmp_path, "--max_steps", 4, *arguments) == 1
    message = capsys.readouterr().err
    assert "error: row 7 of the data set has an unreadable image in column 'image'" in message
    assert "000007.png" in message and "Traceback" not in message


@pytest.mark.parametrize("workers", [0, 1])
def test_what_the_system_refuses_to_read_is_named(pairs_folder, clip_path, tmp_path, capsys, monkeypatch, workers):
    def refuse(self, index):
        raise PermissionError(errno.EACCES, "Permission denied", "0.png")

    monkeypatch.setattr(PairSamples, "__getitem__", refuse)
    assert on_folder(pairs_folder, clip_path, tmp_path, "--cached_views", 0, "--num_workers", workers) == 1
    assert capsys.readouterr().err.endswith("error: [Errno 13] Permission denied: '0.png'\n")


def test_one_column_for_two_purposes_and_no_caption_at_all(stage1, tmp_path):
    """The modification text can stand in for a missing caption; without soft alignment none is needed."""
    rows = scenes.triplets(8).remove_columns("reference_caption")
    rows.save_to_disk(tmp_path / "triplets")
    arguments = ["--max_steps", 2, "--batch_size", 4, "--stage", 2, "--model", stage1, "--dataset", tmp_path / "triplets"]
    assert run(*arguments, "--output_dir", tmp_path / "a", "--reference_caption_column", "modification") == 0
    assert run(*arguments, "--output_dir", tmp_path / "b", "--soft_weight", 0) == 0
    assert run(*arguments, "--output_dir", tmp_path / "c") == 1
    assert run(*arguments, "--output_dir", tmp_path / "d", "--soft_weight", 0, "--target_column", "reference") == 1


def test_captions_must_be_texts(clip_path, tmp_path, capsys):
    rows = scenes.pairs(8).map(lambda row: {"captions": [row["caption"]]})
    rows.save_to_disk(tmp_path / "pairs")
    assert on_folder(tmp_path / "pairs", clip_path, tmp_path, "--caption_column", "captions") == 1
    assert "column 'captions'" in capsys.readouterr().err


def test_grey_and_transparent_images_can_be_trained_on(clip_path, tmp_path):
    folder = tmp_path / "mixed"
    folder.mkdir()
    rows = []
    for index, mode in enumerate(["L", "RGBA", "P", "CMYK", "I;16", "1"]):
        name = f"{index}.{'tiff' if mode == 'CMYK' else 'png'}"
        Image.new(mode, (30 + index, 40)).save(folder / name)
        rows.append({"file_name": name, "caption": "a red circle"})
    (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert on_folder(folder, clip_path, tmp_path) == 0
