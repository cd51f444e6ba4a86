"""A folder appears whole, or not at all."""

from pathlib import Path

import pytest

from m2c.output_folder import new_folder


def test_a_failure_leaves_nothing_behind(tmp_path):
    for interruption in (KeyboardInterrupt, OSError):
        with pytest.raises(interruption), new_folder(tmp_path / "out") as folder:
            (folder / "half.txt").write_text("half")
            raise interruption
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("link", [False, True])
def test_an_empty_folder_may_exist(tmp_path, link, monkeypatch):
    (tmp_path / "real").mkdir()
    (tmp_path / "out").symlink_to(tmp_path / "real")
    if not link:
        (tmp_path / "out").unlink()
        (tmp_path / "out").mkdir()
    monkeypatch.chdir(tmp_path / "real")
    with new_folder(Path(".")) as folder:
        (folder / "here.txt").write_text("here")
    assert (tmp_path / "real" / "here.txt").exists()
    (tmp_path / "real" / "here.txt").unlink()
    with new_folder(tmp_path / "out") as folder:
        (folder / "whole.txt").write_text("whole")
    assert (tmp_path / "out" / "whole.txt").read_text() == "whole"


def test_what_a_killed_run_left_is_no_obstacle(tmp_path):
    (tmp_path / ".unfinished-abc").mkdir()
    with new_folder(tmp_path) as folder:
        (folder / "whole.txt").write_text("whole")
    assert (tmp_path / "whole.txt").exists()
