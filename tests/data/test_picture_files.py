import pytest

from m2c.data.picture_files import find_pictures


def test_pictures_at_any_depth_in_order_and_nothing_else(tmp_path):
    for name in ("b.JPG", "sub/deep/a.png", "sub/b.webp", "notes.txt", ".hidden.png", ".cache/c.png", "a.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "folder.png").mkdir()
    found = find_pictures(tmp_path)
    assert list(found) == ["a.png", "b.JPG", "sub/b.webp", "sub/deep/a.png"]
    assert all(path == tmp_path / name for name, path in found.items())


def test_a_folder_without_any_is_named(tmp_path):
    (tmp_path / "notes.txt").touch()
    with pytest.raises(ValueError, match="there are no pictures in "):
        find_pictures(tmp_path)
    for path in (tmp_path / "gone", tmp_path / "notes.txt"):
        with pytest.raises(ValueError, match=f"{path} is no folder"):
            find_pictures(path)
