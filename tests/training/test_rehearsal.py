"""`--dry_run` says what a run would do, and writes nothing."""

import re

import pytest

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
    foretold = float(re.search(r"features: ([\d.]+) GB", said)[1])
    assert (
        train_accelerate.main([*SMALL, "--model", str(clip_path), "--output_dir", str(tmp_path / "o"), *map(str, arguments)])
        == 0
    )
    stored = sum(path.stat().st_size for path in (tmp_path / "cache").rglob("*.safetensors")) / 1e9
    assert foretold == pytest.approx(stored, abs=0.0005)


def test_what_the_run_would_fail_at_the_rehearsal_fails_at(rehearse, tmp_path):
    folder = write_image_folder(scenes.pairs(10), tmp_path / "pairs")
    assert rehearse("--dataset", folder, "--caption_column", "text")[0] == 1
    assert "1000" in rehearse("--dataset", folder, "--batch_size", 1000)[1]
    (folder / "image" / "000009.png").write_bytes(b"not an image")
    code, said = rehearse("--dataset", folder)
    assert code == 1 and "row 9 of the data set has an unreadable image" in said
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("precious")
    assert "exists and is not empty" in rehearse()[1]
