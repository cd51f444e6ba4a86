import io
from pathlib import Path

import pytest
from PIL import Image

from m2c.data.benchmarks.files import (
    check_bytes,
    check_choice,
    check_images,
    check_item,
    find_file,
    find_folder,
    list_files,
    read_json,
)


def test_the_first_folder_that_has_the_file_is_taken(tmp_path, write_json):
    flat = write_json(tmp_path / "queries.json", [])
    assert find_file(tmp_path, "queries.json", ("captions", "")) == flat
    inner = write_json(tmp_path / "captions" / "queries.json", [])
    assert find_file(tmp_path, "queries.json", ("captions", "")) == inner


def test_an_absent_file_is_reported_with_the_places_where_it_is_expected(tmp_path):
    with pytest.raises(ValueError, match=r"queries\.json was not found .* in one of: captions/, the root itself\. Ask me$"):
        find_file(tmp_path, "queries.json", ("captions", ""), hint="Ask me")


def test_a_root_one_level_too_high_or_too_low_is_named(tmp_path, write_json):
    write_json(tmp_path / "data" / "captions" / "queries.json", [])
    (tmp_path / "data" / "images").mkdir()
    with pytest.raises(ValueError, match=rf"below {tmp_path / 'data'}: the root given is one level too high"):
        find_file(tmp_path, "queries.json", ("captions",))
    with pytest.raises(ValueError, match=rf"below {tmp_path / 'data'}: the root given is one level too low"):
        find_file(tmp_path / "data" / "images", "queries.json", ("captions",))


def test_a_root_that_is_no_folder_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"the root .*nowhere is not a folder"):
        find_file(tmp_path / "nowhere", "queries.json", ("",))


def test_an_absent_folder_is_where_it_should_be(tmp_path):
    assert find_folder(tmp_path, "dev", ("cirr", "")) == tmp_path / "cirr" / "dev"
    (tmp_path / "dev").mkdir()
    assert find_folder(tmp_path, "dev", ("cirr", "")) == tmp_path / "dev"


def test_files_of_several_folders_are_listed_by_name(tmp_path, write_json):
    first, second = write_json(tmp_path / "a" / "1.json", []), write_json(tmp_path / "b" / "2.json", [])
    found = list_files([tmp_path / "a", tmp_path / "absent", tmp_path / "b"])
    assert found == {"1.json": str(first), "2.json": str(second)}


@pytest.mark.parametrize("content", [b'[{"id": 1}, {"i', b"", b"<html>not found</html>", b"\xff\xfe\x00"])
def test_half_written_json_is_named(tmp_path, content):
    path = tmp_path / "queries.json"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"queries\.json is no complete JSON .*cut off"):
        read_json(path, "list")


@pytest.mark.parametrize("content, reason", [(b"[" * 10**5, "nested too deep"), (b"[" + b"1" * 5000 + b"]", "5000 digits")])
def test_json_that_python_cannot_hold_is_named(tmp_path, content, reason):
    path = tmp_path / "queries.json"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=rf"{path} .*{reason}"):
        read_json(path, "list")


def test_a_byte_order_mark_does_no_harm(tmp_path):
    path = tmp_path / "queries.json"
    path.write_bytes(b"\xef\xbb\xbf[1]")
    assert read_json(path, "list") == [1]


def test_json_of_another_kind_is_named(tmp_path, write_json):
    path = write_json(tmp_path / "queries.json", {})
    assert read_json(path, "object") == {}
    with pytest.raises(ValueError, match=r"queries\.json holds a dict, where a JSON list is expected"):
        read_json(path, "list")
    with pytest.raises(ValueError, match="cannot be read: Is a directory"):
        read_json(tmp_path, "list")


@pytest.mark.parametrize(
    "item, message",
    [
        ([1], "item 3: an object with id, names is expected, not"),
        ({"id": 1}, "item 3 has no 'names'; it has id"),
        ({}, "item 3 has no 'id'; it has nothing"),
        ({"id": "one", "names": []}, "item 3: 'id' must be a whole number, not 'one'"),
        ({"id": True, "names": []}, "item 3: 'id' must be a whole number, not True"),
        ({"id": 1, "names": ["a", 2]}, r"item 3: 'names' must be a list of texts, not \['a', 2\]"),
    ],
)
def test_a_wrong_item_is_named_with_its_key(item, message):
    with pytest.raises(ValueError, match=message):
        check_item(item, {"id": "whole number", "names": "list of texts"}, "item 3")


def test_an_unknown_choice_lists_what_there_is():
    check_choice("split", "val", ("val", "test"))
    with pytest.raises(ValueError, match="there is no split 'dev'; there is val, test"):
        check_choice("split", "dev", ("val", "test"))


def _encoded(picture: Image.Image, format: str) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, format)
    return buffer.getvalue()


@pytest.mark.parametrize("format", ["JPEG", "PNG", "GIF", "WEBP", "BMP"])
def test_whole_images_have_no_problem(tmp_path, picture, format):
    path = tmp_path / "image"
    path.write_bytes(_encoded(picture(0), format))
    assert check_images([str(path)]) == {}
    assert check_bytes(path.read_bytes()) is None


@pytest.mark.parametrize("format", ["JPEG", "PNG"])
def test_truncated_images_are_found(tmp_path, picture, format):
    data = _encoded(picture(0, (200, 200)), format)
    for share in (0.3, 0.6, 0.95):
        path = tmp_path / f"{share}"
        path.write_bytes(data[: int(len(data) * share)])
        assert "truncated" in check_images([str(path)])[str(path)]
        assert "truncated" in check_bytes(path.read_bytes())
    assert check_bytes(b"") == "empty" and check_bytes(b"<html>").startswith("not an image (it begins with b'<html>')")


def test_an_image_that_ends_unusually_but_can_be_decoded_is_fine(tmp_path, picture):
    padded, unended = tmp_path / "padded.jpg", tmp_path / "unended.png"
    padded.write_bytes(_encoded(picture(0), "JPEG") + bytes(1000))
    unended.write_bytes(_encoded(picture(0), "PNG") + bytes(1000))
    assert check_images([str(padded), str(unended)]) == {}


def test_whole_images_are_not_decoded(tmp_path, draw, monkeypatch):
    paths = [str(draw(tmp_path / name)) for name in ("1.jpg", "2.png")]
    monkeypatch.setattr(Image.Image, "load", lambda *_: pytest.fail("decoded"))
    assert check_images(paths) == {}


def test_every_problem_has_its_reason_in_the_order_of_the_paths(tmp_path, draw):
    page, empty, folder, good = (tmp_path / name for name in ("page.jpg", "empty.jpg", "folder.jpg", "good.jpg"))
    page.write_text("<html>moved</html>")
    empty.touch()
    folder.mkdir()
    draw(good)
    paths = [str(path) for path in (tmp_path / "none.jpg", page, good, empty, folder, page)]
    problems = check_images(paths)
    assert list(problems) == [paths[0], paths[1], paths[3], paths[4]]
    reasons = [problems[path] for path in problems]
    assert reasons[0] == "missing" and reasons[2] == "empty"
    assert reasons[1] == "not an image (it begins with b'<html>moved</htm')"
    assert reasons[3].startswith("unreadable (") and "directory" in reasons[3]


def test_many_images_are_all_checked(tmp_path, draw):
    good = draw(tmp_path / "good.jpg")
    paths = []
    for number in range(2500):
        path = Path(tmp_path / f"{number}.jpg")
        if number % 500:
            path.symlink_to(good)
        paths.append(str(path))
    assert check_images(paths) == {path: "missing" for path in paths[::500]}
