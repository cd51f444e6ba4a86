import os
import shutil
import sqlite3

import pytest

from m2c.encoding import image_digests
from m2c.encoding.image_digests import ImageDigests


@pytest.fixture
def folder(tmp_path, picture):
    """Three files: a.png, b.png, and c.png, which is the same as a.png."""
    folder = tmp_path / "images"
    folder.mkdir()
    for seed, name in enumerate("ab"):
        picture(seed).save(folder / f"{name}.png")
    shutil.copy(folder / "a.png", folder / "c.png")
    return folder


@pytest.fixture
def digests(tmp_path):
    return ImageDigests(tmp_path / "cache" / "images.sqlite")


@pytest.fixture
def hashed(monkeypatch):
    """The names of the files that are read."""
    names, hash_file = [], image_digests.hashlib.file_digest

    def note(file, *arguments):
        names.append(os.path.basename(file.name))
        return hash_file(file, *arguments)

    monkeypatch.setattr(image_digests.hashlib, "file_digest", note)
    return names


def test_equal_files_have_equal_digests_and_others_do_not(make_benchmark, folder, digests):
    a, b, c = digests.of_gallery(make_benchmark("abc", paths=sorted(folder.iterdir())))
    assert a == c != b


def test_files_of_a_folder_and_of_a_gallery_are_the_same_images(make_benchmark, folder, digests, hashed):
    paths = sorted(folder.iterdir())
    found = digests.of_files(paths)
    assert digests.of_gallery(make_benchmark("abc", paths=paths)) == found == digests.of_files(paths)
    assert hashed == ["a.png", "b.png", "c.png"]


def test_bytes_in_the_gallery_and_a_file_of_them_are_the_same_image(make_benchmark, folder, digests):
    assert digests.of_gallery(make_benchmark("ab")) == digests.of_gallery(
        make_benchmark("ab", paths=[folder / "a.png", folder / "b.png"])
    )


def test_a_box_makes_another_image(make_benchmark, folder, digests):
    paths = [folder / "a.png"] * 4
    boxes = [[], [0, 0, 5, 5], [0, 0, 5, 6], [0, 0, 5, 5]]
    whole, one, other, again = digests.of_gallery(make_benchmark("abcd", paths=paths, boxes=boxes))
    assert len({whole, one, other}) == 3 and one == again


def test_a_file_is_read_once_for_all_runs(make_benchmark, folder, tmp_path, hashed):
    benchmark = make_benchmark("abc", paths=sorted(folder.iterdir()))
    database = tmp_path / "cache" / "images.sqlite"
    first = ImageDigests(database).of_gallery(benchmark)
    assert ImageDigests(database).of_gallery(benchmark) == first
    assert hashed == ["a.png", "b.png", "c.png"]


def test_a_changed_file_is_read_again(make_benchmark, folder, digests, hashed, picture):
    benchmark = make_benchmark("ab", paths=[folder / "a.png", folder / "b.png"])
    a, b = digests.of_gallery(benchmark)
    before = (folder / "a.png").stat()
    content = bytearray((folder / "a.png").read_bytes())
    content[-1] ^= 1
    (folder / "a.png").write_bytes(content)  # of the same size
    os.utime(folder / "a.png", ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    changed, same = digests.of_gallery(benchmark)
    assert changed != a and same == b
    assert hashed == ["a.png", "b.png", "a.png"]


def test_a_relative_path_is_the_file_it_leads_to_now(make_benchmark, folder, digests, tmp_path, monkeypatch, picture):
    benchmark = make_benchmark("ab", paths=["a.png", "a.png"])
    monkeypatch.chdir(folder)
    first = digests.of_gallery(benchmark)
    (tmp_path / "other").mkdir()
    picture(9).save(tmp_path / "other" / "a.png")
    monkeypatch.chdir(tmp_path / "other")
    assert digests.of_gallery(benchmark) != first


def test_a_file_that_is_not_there_is_named(make_benchmark, folder, digests):
    with pytest.raises(ValueError, match=r"images/gone\.png cannot be read"):
        digests.of_gallery(make_benchmark("ab", paths=[folder / "a.png", folder / "gone.png"]))


def test_other_runs_may_write_while_one_reads(make_benchmark, folder, digests, tmp_path, monkeypatch):
    """A file can take long to read; nobody should wait for the database meanwhile."""
    other = sqlite3.connect(tmp_path / "cache" / "images.sqlite", timeout=0)
    hash_file = image_digests.hashlib.file_digest

    def meanwhile(file, *arguments):
        other.execute("INSERT OR REPLACE INTO files VALUES ('x', 1, 1, 'y')")
        other.commit()
        return hash_file(file, *arguments)

    monkeypatch.setattr(image_digests.hashlib, "file_digest", meanwhile)
    assert len(digests.of_gallery(make_benchmark("abc", paths=sorted(folder.iterdir())))) == 3


def test_a_database_that_is_none_is_named_with_the_remedy(tmp_path):
    (tmp_path / "images.sqlite").write_text("<html>" * 100)
    with pytest.raises(OSError, match=r"images\.sqlite.*--cache_dir"):
        ImageDigests(tmp_path / "images.sqlite")
