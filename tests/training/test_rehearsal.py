"""`--dry_run` says what a run would do, and writes nothing."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file, save_file

import train_accelerate
from m2c.data import scenes
from m2c.data.image_folder import write_image_folder


SMALL = ["--mapper_hidden_size", "16", "--injection_hidden_size", "16", "--batch_size", "4", "--max_steps", "6"]


@pytest.fixture
def rehearse(clip_path, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("M2C_CACHE", str(tmp_path / "cache"))

    def run(*arguments) -> tuple[int, str]:
        code = train_accelerate.main(
            [*SMALL, "--model", str(clip_path), "--output_dir", str(tmp_path / "out"), "--dry_run", *map(str, arguments)]
        )
        printed = capsys.readouterr()
        return code, printed.out + printed.err

    return run


@pytest.mark.parametrize("options", [[], ["--cached_views", 2], ["--chunk_size", 3]])
def test_a_rehearsal_says_what_a_run_costs_and_writes_nothing(rehearse, tmp_path, options):
    code, said = rehearse("--max_samples", 14, *options)
    assert code == 0
    assert re.search(r"model: clip, [\d.]+ M parameters, of which [\d.]+ M are trained", said)
    assert "data: scenes, 14 rows, 14 of them opened; 6 steps of 4 rows over 1 process, 2.0 epochs" in said
    assert re.search(r"step: [\d.]+ s .* first loss [\d.]+", said)
    assert re.search(r"memory: [\d.]+ GB", said)
    assert not (tmp_path / "out").exists() and not (tmp_path / "cache").exists()


def test_the_size_of_the_features_is_that_of_the_files(rehearse, clip_path, tmp_path):
    arguments = ["--max_samples", 40, "--cached_views", 2]
    said = rehearse(*arguments)[1]
    foretold = float(re.search(r"views: 2, take ([\d.]+) GB", said)[1])
    assert (
        train_accelerate.main([*SMALL, "--model", str(clip_path), "--output_dir", str(tmp_path / "o"), *map(str, arguments)])
        == 0
    )
    stored = sum(path.stat().st_size for path in (tmp_path / "cache").rglob("*.safetensors")) / 1e9
    assert foretold == pytest.approx(stored, abs=0.0005)


def test_what_the_run_would_fail_at_the_rehearsal_fails_at(rehearse, tmp_path, monkeypatch):
    folder = write_image_folder(scenes.pairs(10), tmp_path / "pairs")
    assert rehearse("--dataset", folder, "--caption_column", "text")[0] == 1
    assert "1000" in rehearse("--dataset", folder, "--batch_size", 1000)[1]
    (folder / "image" / "000009.png").write_bytes(b"not an image")
    code, said = rehearse("--dataset", folder)
    assert code == 1 and "row 9 of the data set has an unreadable image" in said
    code, said = rehearse("--dataset", folder, "--batch_size", 4, "--validation_size", 2)
    assert code == 1 and "row 9 of the data set has an unreadable image" in said, "held out, and counted in all of the data"
    code, said = rehearse("--max_samples", 14, "--cached_views", 1, "--cache_limit_gb", 1e-9)
    assert code == 1 and "more than --cache_limit_gb" in said
    code, said = rehearse("--max_samples", 14, "--validation_size", 4, "--cache_limit_gb", 1e-9)
    assert code == 1 and "features of 4 rows" in said and "more than --cache_limit_gb" in said
    with monkeypatch.context() as patch:
        patch.setattr("m2c.training.records.tracking.get_available_trackers", list)
        code, said = rehearse("--max_samples", 14, "--report_to", "trackio")
    assert code == 1 and "--report_to trackio: not installed" in said
    assert not (tmp_path / "out").exists() and not (tmp_path / "cache").exists()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("precious")
    assert "exists and is not empty" in rehearse()[1]


def test_a_rehearsal_of_going_on_looks_at_the_checkpoint(rehearse, clip_path, tmp_path):
    run = [*SMALL, "--model", clip_path, "--output_dir", tmp_path / "out", "--max_samples", 14, "--checkpoint_steps", 4]
    assert train_accelerate.main([*map(str, run)]) == 0
    assert "nothing is left to do" in rehearse("--max_samples", 14, "--checkpoint_steps", 4, "--resume")[1]
    (tmp_path / "out" / "training.json").unlink()
    before = {path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()}
    code, said = rehearse("--max_samples", 14, "--resume")
    assert code == 0 and "goes on from" in said and "step_000006" in said
    code, said = rehearse("--max_samples", 14, "--resume", "--seed", 3)
    assert code == 1 and "is of another run: seed was 0, is 3" in said
    bump_weights(clip_path)
    code, said = rehearse("--max_samples", 14, "--resume")
    assert code == 1 and "is of another run: what --model names is not what it was" in said
    assert {path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()} == before


def bump_weights(folder: Path) -> None:
    state = load_file(folder / "model.safetensors")
    state["visual_projection.weight"][0, 0] += 1
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})


@pytest.mark.slow
def test_peak_memory_is_of_this_process_alone():
    """What the process that started it holds is not counted."""
    size = 400_000_000
    held = np.ones(size, np.uint8)
    code = "import torch; from m2c.training.memory import peak_memory; print(peak_memory(torch.device('cpu')))"
    before, after = (
        int(subprocess.run([sys.executable, "-c", line], capture_output=True, text=True, check=True).stdout)
        for line in (code, f"import numpy; x = numpy.ones({size}, numpy.uint8); " + code)
    )
    assert held.nbytes == size and before < 1.2e9
    assert after - before == pytest.approx(size, rel=0.1)
