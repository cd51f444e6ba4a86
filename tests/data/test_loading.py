"""Data sets with an index and as streams: both give the same rows, and refuse the same."""

import itertools
import json

import pytest
from datasets import Dataset

from m2c.data import scenes
from m2c.data.image_folder import write_image_folder
from m2c.data.loading import each_row, load_rows, load_stream, read_image

from .shards import rows_of, write_parquet, write_tars


IN_PARQUET = {"image": "image", "caption": "caption"}
IN_TARS = {"image": "png", "caption": "txt"}
IMAGES = {"image"}


@pytest.fixture(scope="module")
def rows():
    return rows_of(scenes.pairs(10))


@pytest.fixture(scope="module")
def tars(rows, tmp_path_factory):
    files = [
        {"png": row["image"], "txt": row["caption"], "json": {"id": number, "texts": {"long": row["caption"] + "!"}}}
        for number, row in enumerate(rows)
    ]
    return write_tars(files, tmp_path_factory.mktemp("data") / "tars", 3)


@pytest.fixture(scope="module")
def parquet(tmp_path_factory):
    return write_parquet(scenes.pairs(10), tmp_path_factory.mktemp("data") / "parquet", 3)


def contents(loaded) -> list[dict]:
    """Rows as [`rows_of`] gives them, of either kind of data set."""
    rows = loaded if isinstance(loaded, Dataset) else each_row(loaded)
    return [{"image": row["image"]["bytes"], "caption": row["caption"]} for row in rows]


@pytest.mark.parametrize("load", [load_rows, load_stream])
def test_parquet_and_webdataset_hold_the_same_rows(load, rows, tars, parquet):
    assert contents(load(str(parquet), IN_PARQUET, IMAGES, None, "train")) == rows
    assert contents(load(str(tars), IN_TARS, IMAGES, None, "train")) == rows
    assert contents(load(f"{tars}/*.tar", IN_TARS, IMAGES, None, "train")) == rows
    assert contents(load(f"{parquet}/train-00[12].parquet", IN_PARQUET, IMAGES, None, "train")) == rows[4:]


@pytest.mark.parametrize("load", [load_rows, load_stream])
def test_a_text_may_be_a_field_of_json_and_serve_twice(load, rows, tars):
    columns = {"image": "png", "caption": "json.texts.long", "other": "json.texts.long", "third": "txt"}
    loaded = load(str(tars), columns, IMAGES, None, "train")
    assert set(loaded.column_names) - {"row_name"} == set(columns)
    for row, expected in zip(loaded, rows, strict=True):
        assert row["caption"] == row["other"] == expected["caption"] + "!" and row["third"] == expected["caption"]


def test_a_stream_has_a_shard_for_each_file(tars, parquet):
    assert load_stream(str(tars), IN_TARS, IMAGES, None, "train").num_shards == 3
    assert load_stream(str(parquet), IN_PARQUET, IMAGES, None, "train").num_shards == 3


@pytest.mark.parametrize("load", [load_rows, load_stream])
@pytest.mark.parametrize(
    ("columns", "split", "message"),
    [
        (
            {"image": "jpg", "caption": "json.text"},
            "train",
            "no column 'jpg', 'json.text'; it has png, txt, json, json.id,",
        ),
        ({"image": "jpg", "caption": "txt"}, "train", "Name the right ones with --image_column$"),
        ({"image": "png", "caption": "json.id"}, "train", r"column 'json.id' of .* holds Value\('int64'\), not texts"),
        ({"image": "json", "caption": "txt"}, "train", "column 'json' of .*, not images"),
        ({"image": "json.texts.long", "caption": "txt"}, "train", "column 'json.texts.long' of .*, not images"),
        ({"image": "txt", "caption": "txt"}, "train", "column 'txt' of .* is named for two purposes"),
        (IN_TARS, "test", r"cannot load the local folder .*, split 'test': .*\['train'\]"),
    ],
)
def test_wrong_columns_are_named(load, tars, columns, split, message):
    with pytest.raises(ValueError, match=message):
        load(str(tars), columns, IMAGES, None, split)


@pytest.mark.parametrize("load", [load_rows, load_stream])
def test_what_is_not_there_is_named(load, tmp_path):
    with pytest.raises(ValueError, match=r"cannot load the files '.*/no/\*.tar', split 'train': .*there is no such file"):
        load(f"{tmp_path}/no/*.tar", IN_TARS, IMAGES, None, "train")
    with pytest.raises(ValueError, match=r"no such folder, and it was not found on the Hub\) 'no/such'"):
        load("no/such", IN_TARS, IMAGES, None, "train")
    (tmp_path / "garbage").mkdir()
    (tmp_path / "garbage" / "train.tar").write_bytes(b"not a tar" * 100)
    with pytest.raises(ValueError, match="cannot load the local folder"):
        load(str(tmp_path / "garbage"), IN_TARS, IMAGES, None, "train")
    with pytest.raises(ValueError, match=r"has no rows in its split train|corresponds to no data"):
        empty = write_parquet(scenes.pairs(1).select([]), tmp_path / "empty", 1)
        load(str(empty), IN_PARQUET, IMAGES, None, "train")


def test_what_cannot_be_streamed_is_named(tmp_path):
    (tmp_path / "table").mkdir()
    (tmp_path / "table" / "train.csv").write_text("image,caption\na.png,a red circle\n")
    with pytest.raises(ValueError, match=r"does not say ahead which columns it has.*leave out --streaming"):
        load_stream(str(tmp_path / "table"), IN_PARQUET, IMAGES, None, "train")
    scenes.pairs(2).save_to_disk(tmp_path / "saved")
    with pytest.raises(ValueError, match=r"save_to_disk wrote it.*leave out --streaming"):
        load_stream(str(tmp_path / "saved"), IN_PARQUET, IMAGES, None, "train")


def test_images_named_by_their_paths_can_be_streamed(rows, tmp_path):
    folder = write_image_folder(scenes.pairs(10), tmp_path / "folder")
    entries = map(json.loads, (folder / "metadata.jsonl").read_text().splitlines())
    paths = [{"image": str(folder / entry["file_name"]), "caption": entry["caption"]} for entry in entries]
    parquet = write_parquet(Dataset.from_list(paths), tmp_path / "paths", 2)
    stream = load_stream(str(parquet), IN_PARQUET, IMAGES, None, "train")
    for row, expected in zip(each_row(stream), scenes.pairs(10), strict=True):
        assert read_image(row, "image", 0).tobytes() == expected["image"].convert("RGB").tobytes()


def test_holes_in_rows(rows, tmp_path):
    """WebDataset decides about columns by the first five rows; later ones may lack some of them."""
    image = rows[0]["image"]
    files = [{"png": image, "json": {"caption": str(number)}} for number in range(8)]
    files[5:] = [{"png": image}, {"png": image, "json": {"other": 1}}, {"json": {"caption": "7"}}]
    folder = write_tars(files, tmp_path / "holes", 1)
    stream = load_stream(str(folder), {"image": "png", "caption": "json.caption"}, IMAGES, None, "train")
    read = list(each_row(stream))
    assert [row["caption"] for row in read] == ["0", "1", "2", "3", "4", None, None, "7"]
    message = r"row '000007' \(train-000.tar\) of the data set has an unreadable image in column 'image': there is no image"
    with pytest.raises(ValueError, match=message):
        read_image(read[7], "image", 7)


def test_a_damaged_image_is_named_by_key_and_shard_or_by_its_text(rows, tmp_path):
    files = [{"png": row["image"], "txt": row["caption"]} for row in rows]
    files[7]["png"] = b"not an image"
    stream = load_stream(str(write_tars(files, tmp_path / "tars", 3)), IN_TARS, IMAGES, None, "train")
    with pytest.raises(ValueError, match=r"row '000007' \(train-001.tar\) .* column 'image' \(000007.png\): .* check the file"):
        read_image(list(each_row(stream))[7], "image", 7)
    damaged = [{"image": {"bytes": b"no", "path": None}, "caption": "a red circle " * 20}]
    folder = write_parquet(Dataset.from_list(damaged, scenes.pairs(1).features), tmp_path / "parquet", 1)
    stream = load_stream(str(folder), IN_PARQUET, IMAGES, None, "train")
    with pytest.raises(ValueError, match=f"row '{('a red circle ' * 20)[:60]}' of the data set has an unreadable image"):
        read_image(next(each_row(stream)), "image", 0)


@pytest.mark.parametrize("kind", ["tar", "parquet"])
def test_a_stream_that_breaks_off_says_so(tars, parquet, tmp_path, kind):
    folder = tmp_path / "cut"
    folder.mkdir()
    first, second, _ = sorted((tars if kind == "tar" else parquet).iterdir())
    (folder / first.name).write_bytes(first.read_bytes())
    (folder / second.name).write_bytes(second.read_bytes()[: second.stat().st_size // 3])
    columns = IN_TARS if kind == "tar" else IN_PARQUET
    read = each_row(load_stream(str(folder), columns, IMAGES, None, "train"))
    assert len(list(itertools.islice(read, 4))) == 4
    with pytest.raises(ValueError, match=r"the stream of rows broke off \(\w+: .*\); check files and network"):
        list(read)
