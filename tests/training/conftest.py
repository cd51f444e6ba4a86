"""What whole runs of the training script begin with."""

import pytest

from m2c.data import scenes
from m2c.data.image_folder import write_image_folder

from .runs import FAST, SMALL, run


@pytest.fixture
def stage1(clip_path, tmp_path):
    out = tmp_path / "stage1"
    assert run(*FAST, *SMALL, "--model", clip_path, "--output_dir", out) == 0
    return out


@pytest.fixture
def pairs_folder(tmp_path):
    return write_image_folder(scenes.pairs(10), tmp_path / "pairs")
