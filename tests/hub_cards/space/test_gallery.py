"""Pictures of somebody's folder become a gallery that can be shown to everybody."""

import json

import pytest
from PIL import Image

from hub_cards.space.gallery import LONGEST_SIDE, read_gallery, store
from m2c.data.scenes import composed_retrieval


NAMES = ("a.JPG", "below/ключ 🦊.png", "z.webp")


@pytest.fixture
def pictures(tmp_path):
    """A folder of pictures, and of what is none of the gallery's."""
    folder = tmp_path / "pictures"
    (folder / "below").mkdir(parents=True)
    (folder / ".hidden").mkdir()
    for name, color in zip((*NAMES, ".hidden/b.png"), ("red", "green", "blue", "white")):
        Image.new("RGB", (40, 30), color).save(folder / name)
    (folder / "notes.txt").write_text("my notes")
    return folder


def write_examples(folder, *lines):
    (folder / "examples.jsonl").write_text("\n".join(map(str, lines)), encoding="utf-8")


def test_a_folder(pictures):
    rows = [{"file_name": NAMES[1], "modification": "is red"}, {"file_name": NAMES[0], "modification": ""}]
    write_examples(pictures, json.dumps(rows[0]), "", json.dumps(rows[1]))
    gallery = read_gallery(str(pictures), "cc-by-4.0")
    assert tuple(gallery.pictures) == NAMES and gallery.licence == "cc-by-4.0"
    assert gallery.examples == [(NAMES[1], "is red"), (NAMES[0], "")]


def test_scenes():
    gallery, data = read_gallery("scenes", None), composed_retrieval(20)
    assert len(gallery.pictures) == 120 and gallery.licence == "apache-2.0"
    for (name, modification), query in zip(gallery.examples, data["queries"]):
        assert (name, modification) == (f"{query['reference_id']}.png", query["modification"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda folder: write_examples(folder, "{"), "line 1 of .*examples.jsonl is no JSON"),
        (lambda folder: write_examples(folder, "", '["a.JPG", "is red"]'), "line 2 of .*: an object with file_name"),
        (lambda folder: write_examples(folder, '{"file_name": "a.JPG"}'), "line 1 of .* has no 'modification'"),
        (lambda folder: write_examples(folder, '{"file_name": "no.png", "modification": ""}'), "has no picture 'no.png'"),
        (lambda folder: write_examples(folder, '{"file_name": ["a.JPG"], "modification": ""}'), "'file_name' must be a text"),
        (lambda folder: write_examples(folder, '{"file_name": "a.JPG", "modification": 3}'), "'modification' must be a text"),
        (lambda folder: (folder / "a.JPG").write_bytes(b""), r"1 of 3 pictures in .* cannot be used: a.JPG \(empty\)"),
        (lambda folder: (folder / "b.png").write_bytes(b"\x89PNG"), r"1 of 4 pictures .* b.png \(not an image"),
        (lambda folder: [(folder / name).unlink() for name in NAMES], "there are no pictures in"),
    ],
)
def test_what_is_wrong_in_a_folder_is_named(pictures, change, message):
    change(pictures)
    with pytest.raises(ValueError, match=message):
        read_gallery(str(pictures), "cc-by-4.0")


def test_a_gallery_needs_a_folder_and_a_licence(pictures):
    with pytest.raises(ValueError, match="is no folder"):
        read_gallery(str(pictures / "nothing"), "cc-by-4.0")
    with pytest.raises(ValueError, match="no licence; name one with --licence"):
        read_gallery(str(pictures), None)


def test_pictures_are_stored_without_what_a_camera_notes_down(tmp_path):
    """Turned upright and scaled down too."""
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation: a quarter turn
    exif.get_ifd(0x8825)[1] = "N"  # where it was taken
    photo = Image.new("RGB", (2000, 1000), "red")
    photo.paste("blue", (0, 0, 1000, 1000))
    (tmp_path / "photos").mkdir()
    photo.save(tmp_path / "photos" / "photo.jpg", exif=exif, comment=b"my home")
    photo.save(tmp_path / "photos" / "photo.png", exif=exif)
    (tmp_path / "stored").mkdir()
    files = store(read_gallery(str(tmp_path / "photos"), "mit"), tmp_path / "stored")
    assert sorted(path.name for path in (tmp_path / "stored").iterdir()) == sorted(files.values())
    for name in files.values():
        with Image.open(tmp_path / "stored" / name) as stored:
            assert stored.size == (LONGEST_SIDE // 2, LONGEST_SIDE)
            assert not stored.getexif() and "comment" not in stored.info
            red, _, blue = stored.getpixel((50, 10))
            assert blue > 200 and red < 50, "the left half is the upper one now"


def test_of_equal_pictures_one_is_stored(pictures, tmp_path):
    (pictures / "copy.png").write_bytes((pictures / NAMES[1]).read_bytes())
    (tmp_path / "stored").mkdir()
    files = store(read_gallery(str(pictures), "mit"), tmp_path / "stored")
    assert files["copy.png"] == files[NAMES[1]]
    assert {path.name for path in (tmp_path / "stored").iterdir()} == set(files.values()) and len(set(files.values())) == 3
    with Image.open(tmp_path / "stored" / files[NAMES[1]]) as stored:
        assert stored.format == "PNG" and stored.getcolors() == [(1200, (0, 128, 0))], "PNG loses nothing"
