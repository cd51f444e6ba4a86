import json
import re

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import load_dataset
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from m2c.retrieval.text_store import (
    ADDED_OBJECTS,
    CAPTION,
    EDITED_CAPTION,
    Text,
    TextStore,
    exchange,
    export_texts,
    import_texts,
)


BLIP = {"model": "blip", "revision": None, "temperature": 1.0, "prompt": 'says "hi"\n'}
QWEN = {"model": "qwen", "templates": {"edit": "ab"}, "seed": 2**40}
TEXTS = [
    *(
        Text(CAPTION, BLIP, {"image": f"{image:02}", "number": number}, f"caption {number}")
        for image in range(3)
        for number in (0, 1)
    ),
    Text(EDITED_CAPTION, QWEN, {"messages": "cd", "captions": ["a", "b\ud83d"], "modification": "in \U0001f534"}, "a red one"),
    Text(ADDED_OBJECTS, QWEN, {"messages": "ef", "captions": ["2020-01-01"], "modification": ""}, ""),
]
both = pytest.mark.parametrize("suffix", ["parquet", "jsonl"])


@pytest.fixture
def make_store(tmp_path):
    def make(name: str, texts: list[Text] = ()) -> TextStore:
        store = TextStore(tmp_path / name / "texts.sqlite")
        store.add(texts)
        return store

    return make


@pytest.fixture
def store(make_store):
    return make_store("mine", TEXTS)


def rows_of(path) -> list[dict]:
    if path.suffix == ".parquet":
        return pq.read_table(path).to_pylist()
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@both
def test_a_round_trip_changes_nothing(store, make_store, tmp_path, suffix, monkeypatch):
    monkeypatch.setattr(exchange, "ROWS_AT_ONCE", 3)
    path = tmp_path / "out" / f"texts.{suffix}"
    assert export_texts(store, path) == 8
    other = make_store("other")
    assert import_texts(other, path) == (8, 0)
    assert list(other.all()) == list(store.all()) == TEXTS
    assert import_texts(other, path) == (0, 8)
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_both_formats_hold_the_same(store, tmp_path):
    for suffix in ("parquet", "jsonl"):
        export_texts(store, tmp_path / f"texts.{suffix}", images={"00": "a.png", "02": "c.png"})
    assert rows_of(tmp_path / "texts.parquet") == rows_of(tmp_path / "texts.jsonl")


hostile = st.text(st.characters(exclude_categories=()), max_size=30)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
@given(text=hostile, prompt=hostile, suffix=st.sampled_from(["parquet", "jsonl"]))
def test_hostile_texts_survive_the_round_trip(make_store, tmp_path_factory, text, prompt, suffix):
    folder = tmp_path_factory.mktemp("hostile")
    store, other = TextStore(folder / "a.sqlite"), TextStore(folder / "b.sqlite")
    # Of nothing new the text is empty; a caption would be refused.
    store.add([Text(ADDED_OBJECTS, {"model": "m", "prompt": prompt}, {"image": text, "number": 0}, text)])
    export_texts(store, folder / f"texts.{suffix}")
    assert import_texts(other, folder / f"texts.{suffix}") == (1, 0)
    assert list(other.all()) == list(store.all())


@both
def test_anyone_can_read_it(store, tmp_path, suffix):
    """Without this package, and with the columns that people look for."""
    path = tmp_path / f"captions.{suffix}"
    assert export_texts(store, path, images={"00": "a.png", "02": "sub/c.png"}) == 4
    builder = {"parquet": "parquet", "jsonl": "json"}[suffix]
    rows = load_dataset(builder, data_files=str(path), split="train", cache_dir=str(tmp_path / "hf"))
    assert rows["file_name"][:] == ["a.png", "a.png", "sub/c.png", "sub/c.png"]
    assert rows["text"][:] == ["caption 0", "caption 1"] * 2 and set(rows["model"]) == {"blip"}


def test_only_what_is_asked_for(store, make_store, tmp_path):
    assert export_texts(store, tmp_path / "edits.jsonl", kind=EDITED_CAPTION) == 1
    assert export_texts(store, tmp_path / "qwen.jsonl", model="qwen") == 2
    assert [row["file_name"] for row in rows_of(tmp_path / "qwen.jsonl")] == [None, None]
    for wanted in ({"kind": EDITED_CAPTION, "model": "blip"}, {"images": {"zz": "z.png"}}):
        with pytest.raises(ValueError, match=r"no such texts in .*texts\.sqlite"):
            export_texts(store, tmp_path / "none.jsonl", **wanted)
    with pytest.raises(ValueError, match="no such texts"):
        export_texts(make_store("empty"), tmp_path / "none.parquet")
    assert not list(tmp_path.glob("none*"))


def test_no_file_is_overwritten_and_none_of_another_format_written(store, tmp_path):
    (tmp_path / "mine.parquet").write_text("mine")
    with pytest.raises(FileExistsError, match=r"mine\.parquet exists already"):
        export_texts(store, tmp_path / "mine.parquet")
    assert (tmp_path / "mine.parquet").read_text() == "mine"
    for action in (export_texts, import_texts):
        with pytest.raises(ValueError, match=r"texts\.csv.*\.parquet or \.jsonl"):
            action(store, tmp_path / "texts.csv")
    with pytest.raises(FileNotFoundError, match=r"there is no file .*gone\.jsonl"):
        import_texts(store, tmp_path / "gone.jsonl")


@both
def test_a_disk_that_is_full_leaves_no_half_file(store, tmp_path, suffix):
    resource = pytest.importorskip("resource")
    store.add(Text(CAPTION, BLIP, {"image": "zz", "number": number}, "long " * 100) for number in range(100))
    out, limits = tmp_path / "out", resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
    try:
        with pytest.raises(OSError):
            export_texts(store, out / f"texts.{suffix}")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not list(out.iterdir())


def test_what_was_published_need_not_have_all_columns_or_only_those(store, make_store, tmp_path):
    export_texts(store, tmp_path / "texts.jsonl")
    rows = [
        {**{name: value for name, value in row.items() if name not in ("model", "file_name")}, "likes": 3}
        for row in rows_of(tmp_path / "texts.jsonl")
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "changed.parquet")
    other = make_store("other")
    assert import_texts(other, tmp_path / "changed.parquet") == (8, 0) and list(other.all()) == TEXTS


def test_what_is_there_wins_over_what_is_imported(store, make_store, tmp_path):
    export_texts(store, tmp_path / "texts.jsonl")
    other = make_store("other", [Text(CAPTION, BLIP, {"image": "00", "number": 0}, "mine")])
    assert import_texts(other, tmp_path / "texts.jsonl") == (7, 1)
    assert next(other.all()).text == "mine"


DAMAGES = {
    "another text's key": {"key": "0" * 64},
    "another source": {"source": '{"image":"00","number":9}'},
    "another generator": {"generator": '{"model":"blop"}'},
    "another kind": {"kind": "poem"},
    "no JSON": {"generator": "{'model'}"},
    "a list": {"generator": "[]"},
    "not a number": {"source": '{"image":NaN}'},
    "no text": {"text": None},
    "a number": {"text": 3},
    "too deep": {"source": "[" * 100_000},
    "an empty caption": {"text": " \n"},
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_row_is_named_and_nothing_is_imported(store, make_store, tmp_path, damage):
    path = tmp_path / "texts.jsonl"
    export_texts(store, path)
    rows = rows_of(path)
    rows[4] |= DAMAGES[damage]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    other = make_store("other")
    with pytest.raises(ValueError, match=r"row 5 of .*texts\.jsonl.*nothing was imported"):
        import_texts(other, path)
    assert not list(other.all())


def cut(path):
    path.write_bytes(path.read_bytes()[:-30])


def hole(path):
    content = bytearray(path.read_bytes())
    content[200:260] = bytes(60)
    path.write_bytes(content)


@both
@pytest.mark.parametrize(
    "damage", [cut, hole, lambda path: path.write_bytes(b""), lambda path: path.write_bytes(b"\xff<html>")]
)
def test_a_damaged_file_is_named_and_nothing_is_imported(store, make_store, tmp_path, suffix, damage):
    path = tmp_path / f"texts.{suffix}"
    export_texts(store, path)
    damage(path)
    other = make_store("other")
    if suffix == "jsonl" and not path.read_bytes():
        assert import_texts(other, path) == (0, 0)
    else:
        with pytest.raises(ValueError, match=re.escape(str(path)) + ".*nothing was imported"):
            import_texts(other, path)
    assert not list(other.all())


def test_a_missing_column_is_named(store, make_store, tmp_path):
    export_texts(store, tmp_path / "texts.parquet")
    table = pq.read_table(tmp_path / "texts.parquet")
    pq.write_table(table.drop_columns(["generator", "key"]), tmp_path / "changed.parquet")
    with pytest.raises(ValueError, match=r"changed\.parquet is damaged \(there is no column key, generator\)"):
        import_texts(make_store("other"), tmp_path / "changed.parquet")


def test_lines_that_are_no_objects_are_named(make_store, tmp_path):
    (tmp_path / "texts.jsonl").write_text('["key"]\n')
    with pytest.raises(ValueError, match=r"texts\.jsonl is damaged \(line 1 is no object\)"):
        import_texts(make_store("other"), tmp_path / "texts.jsonl")
