import json

import pytest
from datasets import Image, load_dataset
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from m2c.data.benchmarks import load_cirr, load_own, make_query, write_benchmark
from m2c.data.benchmarks.fashioniq import load_fashioniq
from m2c.data.benchmarks.genecis import load_genecis


FORMATS = ["imagefolder", "parquet"]


def _image_bytes(benchmark) -> list[bytes]:
    rows = benchmark.gallery.cast_column("image", Image(decode=False))["image"]
    return [row["bytes"] if row["bytes"] is not None else open(row["path"], "rb").read() for row in rows]


def _assert_equal(first, second):
    for key in ("name", "split", "category", "left_out"):
        assert getattr(first, key) == getattr(second, key)
    assert list(first.queries) == list(second.queries) and first.queries.features == second.queries.features
    assert first.gallery["id"][:] == second.gallery["id"][:] and first.gallery.features == second.gallery.features
    for position in range(len(first.gallery)):
        assert first.picture(position).tobytes() == second.picture(position).tobytes()


@pytest.mark.parametrize("format", FORMATS)
def test_round_trip_of_each_benchmark(tmp_path, make_cirr, make_fashioniq, make_genecis, format):
    benchmarks = {
        "cirr": load_cirr(make_cirr(tmp_path / "CIRR")),
        "fashioniq": load_fashioniq(make_fashioniq(tmp_path / "FIQ"), category="toptee"),
        "genecis": load_genecis(make_genecis(tmp_path / "GENECIS"), "change_object"),
    }
    for name, benchmark in benchmarks.items():
        again = load_own(write_benchmark(benchmark, tmp_path / "own" / name, format))
        _assert_equal(benchmark, again)
        assert _image_bytes(benchmark) == _image_bytes(again)


@pytest.mark.parametrize("format", FORMATS)
def test_boxes_are_cut_out_when_written(tmp_path, make_genecis, format):
    benchmark = load_genecis(make_genecis(tmp_path / "GENECIS"), "focus_attribute")
    again = load_own(write_benchmark(benchmark, tmp_path / "own", format))
    _assert_equal(benchmark, again)
    assert again.gallery["box"][:] == [[]] * 4 and again.crop is None


words = st.text(st.characters(codec="utf-8"), max_size=8)
queries = st.lists(
    st.builds(
        lambda name, texts, others, aspects, concept, secret: make_query(
            name,
            "a",
            texts,
            None if secret else "b",
            subset_ids=["b", *others],
            answer_ids=["b", *others],
            aspects=aspects,
            shared_concept=concept,
        ),
        words,
        st.lists(words),
        st.lists(st.sampled_from("cde"), unique=True),
        st.lists(words),
        st.none() | words,
        st.booleans(),
    ),
    min_size=1,
    unique_by=lambda query: query["id"],
)


@pytest.mark.parametrize("format", FORMATS)
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(queries=queries)
def test_round_trip_of_any_queries(tmp_path_factory, make_benchmark, format, queries):
    benchmark = make_benchmark(queries=queries, category="things", left_out={"queries": 2})
    _assert_equal(benchmark, load_own(write_benchmark(benchmark, tmp_path_factory.mktemp("own"), format)))


def test_the_gallery_is_a_data_set_for_anyone(tmp_path, make_benchmark):
    benchmark = make_benchmark()
    folder = write_benchmark(benchmark, tmp_path / "folder")
    rows = load_dataset("imagefolder", data_dir=str(folder / "gallery"), split="train")
    assert rows["id"][:] == list("abcde") and rows[2]["image"].tobytes() == benchmark.picture(2).tobytes()
    path = write_benchmark(benchmark, tmp_path / "parquet", "parquet") / "gallery.parquet"
    rows = load_dataset("parquet", data_files=str(path), split="train")
    assert rows[2]["image"].tobytes() == benchmark.picture(2).tobytes()


def test_nothing_is_overwritten_and_nothing_half_is_left(tmp_path, make_benchmark, make_cirr):
    directory = write_benchmark(make_benchmark(), tmp_path / "own")
    before = sorted(directory.rglob("*"))
    with pytest.raises(FileExistsError, match="exists already"):
        write_benchmark(make_benchmark(), directory)
    assert sorted(directory.rglob("*")) == before
    root = make_cirr(tmp_path / "CIRR")
    (root / "dev" / "dev-4-0-img0.png").unlink()
    for format in FORMATS:
        with pytest.raises(FileNotFoundError, match="dev-4-0-img0"):
            write_benchmark(load_cirr(root), tmp_path / "new", format)
        assert not (tmp_path / "new").exists()
    with pytest.raises(ValueError, match="no format 'csv'; there is imagefolder, parquet"):
        write_benchmark(make_benchmark(), tmp_path / "new", "csv")


@pytest.fixture
def by_hand(tmp_path, draw):
    """Writes a benchmark as a user would; arguments replace lines."""

    def make(queries: list, images: list | None = None):
        root = tmp_path / "shoes"
        for number, name in enumerate("abc"):
            draw(root / "gallery" / "pictures" / f"{name}.jpg", number)
        images = images or [{"file_name": f"pictures/{name}.jpg", "id": name} for name in "abc"]
        lines = [line if isinstance(line, str) else json.dumps(line) for line in images]
        (root / "gallery" / "metadata.jsonl").write_text("\n".join(lines) + "\n\n")
        lines = [line if isinstance(line, str) else json.dumps(line) for line in queries]
        (root / "queries.jsonl").write_text("\n".join(lines))
        return root

    return make


QUERY = {"id": "1", "reference_id": "a", "modification": "with a zip", "target_id": "b"}


def test_a_folder_made_by_hand(by_hand):
    optional = {"subset_ids": ["b", "c"], "answer_ids": ["b"], "aspects": ["addition"], "shared_concept": None}
    second = {"id": "2", "reference_id": "c", "captions": ["is blue", "is flat"], "target_id": None, "aspects": None}
    benchmark = load_own(by_hand([{**QUERY, **optional}, "", second]))
    assert (benchmark.name, benchmark.split, benchmark.category, benchmark.left_out) == ("shoes", "val", None, {})
    assert benchmark.gallery["id"] == ["a", "b", "c"] and benchmark.picture(1).size == (24, 16)
    assert list(benchmark.queries) == [
        make_query("1", "a", ["with a zip"], "b", **optional),
        make_query("2", "c", ["is blue", "is flat"], None),
    ]


@pytest.mark.parametrize(
    "query, message",
    [
        ('{"id": "2", ', r"line 2 of .*queries\.jsonl is no complete JSON"),
        (["2"], r"line 2 of .*queries\.jsonl: an object with id, reference_id, captions, target_id is expected"),
        ({"id": "2", "captions": [""], "target_id": None}, r"line 2 of .*queries\.jsonl has no 'reference_id'"),
        ({**QUERY, "id": 2}, "line 2 of .*: 'id' must be a text, not 2"),
        ({**QUERY, "id": "2", "captions": ["x"]}, "line 2 of .* has both 'captions' and 'modification'"),
        ({**QUERY, "id": "2", "modification": ["x"]}, "line 2 of .*: 'modification' must be a text"),
        ({**QUERY, "id": "2", "subset_ids": "b"}, "line 2 of .*: 'subset_ids' must be a list of texts"),
        ({**QUERY, "id": "2", "subset": ["b"]}, "line 2 of .* has 'subset', which is none of id, reference_id"),
        ({**QUERY, "id": "2", "target_id": "z"}, r"line 2 of .*: 'z' \(target_id\) is not among the 3 images"),
        ({**QUERY, "id": "2", "answer_ids": ["b", "z"]}, r"line 2 of .*: 'z' \(answer_ids\) is not among the 3 images"),
        ({**QUERY, "id": "2", "answer_ids": ["c"]}, "line 2 of .*: the target 'b' is not among its 'answer_ids'"),
        ({**QUERY, "id": "2", "subset_ids": ["c"]}, "line 2 of .*: the target 'b' is not among its 'subset_ids'"),
        ({**QUERY, "id": "2", "target_id": "a"}, "line 2 of .*: 'a' is both 'reference_id' and 'target_id'"),
        (QUERY, "line 2 of .*: the query id '1' is also that of line 1"),
    ],
)
def test_a_wrong_query_names_file_line_and_key(by_hand, query, message):
    with pytest.raises(ValueError, match=message):
        load_own(by_hand([QUERY, query]))


@pytest.mark.parametrize(
    "image, message",
    [
        ({"file_name": "pictures/b.jpg"}, r"line 2 of .*metadata\.jsonl has no 'id'"),
        ({"file_name": 3, "id": "b"}, r"line 2 of .*metadata\.jsonl: 'file_name' must be a text, not 3"),
        ({"file_name": "pictures/b.jpg", "id": "a"}, r"line 2 of .*: the image id 'a' is also that of line 1"),
        ("{", r"line 2 of .*metadata\.jsonl is no complete JSON"),
    ],
)
def test_a_wrong_image_names_file_line_and_key(by_hand, image, message):
    with pytest.raises(ValueError, match=message):
        load_own(by_hand([QUERY], [{"file_name": "pictures/a.jpg", "id": "a"}, image]))


def test_what_is_not_there_is_named(tmp_path, by_hand):
    with pytest.raises(ValueError, match="nowhere is not a folder"):
        load_own(tmp_path / "nowhere")
    with pytest.raises(ValueError, match=r"has gallery/metadata\.jsonl or gallery\.parquet; there is neither"):
        load_own(tmp_path)
    root = by_hand([])
    with pytest.raises(ValueError, match=r"queries\.jsonl has no queries"):
        load_own(root)
    (root / "queries.jsonl").unlink()
    with pytest.raises(ValueError, match=r"has queries\.jsonl or queries\.parquet; there is neither"):
        load_own(root)


def test_wrong_parquet_files_are_named(tmp_path, make_benchmark):
    root = write_benchmark(make_benchmark(), tmp_path / "own", "parquet")
    queries = (root / "queries.parquet").read_bytes()
    (root / "queries.parquet").write_bytes(queries[:-20])
    with pytest.raises(ValueError, match=r"queries\.parquet is no complete parquet file"):
        load_own(root)
    (root / "gallery.parquet").write_bytes(queries)
    with pytest.raises(ValueError, match=r"gallery\.parquet must have the columns id and image; it has id, reference_id"):
        load_own(root)


def test_a_wrong_query_of_a_parquet_file_is_named_by_row(tmp_path, make_benchmark):
    benchmark = make_benchmark(queries=[make_query("1", "a", [""], "b"), make_query("2", "a", [""], "z")])
    root = write_benchmark(benchmark, tmp_path / "own", "parquet")
    with pytest.raises(ValueError, match=r"row 1 of .*queries\.parquet: 'z' \(target_id\) is not among the 5 images"):
        load_own(root)


def test_a_wrong_description_is_named(by_hand, write_json):
    root = by_hand([QUERY])
    write_json(root / "benchmark.json", {"name": "boots", "category": None, "made_by": "me"})
    assert (load_own(root).name, load_own(root).category) == ("boots", None)
    write_json(root / "benchmark.json", {"split": 3})
    with pytest.raises(ValueError, match=r"benchmark\.json: 'split' must be a plain name .*, not 3"):
        load_own(root)


@pytest.mark.parametrize("key", ["name", "split", "category", "variant"])
@pytest.mark.parametrize("value", ["", " ", "a/b", "a\\b", "../a", ".a", "a\0b", "a\nb", "\ud800", "a" * 101, 3])
def test_names_that_end_up_in_file_names_are_plain(by_hand, write_json, key, value):
    root = by_hand([QUERY])
    write_json(root / "benchmark.json", {key: "é" * 100})
    assert getattr(load_own(root), key) == "é" * 100
    write_json(root / "benchmark.json", {key: value})
    with pytest.raises(ValueError, match=rf"benchmark\.json: '{key}' must be a plain name"):
        load_own(root)


@pytest.mark.parametrize("about", [{"name": None}, {"split": None}, {"left_out": None}, {"left_out": [1]}])
def test_only_category_and_variant_may_be_null(by_hand, write_json, about):
    root = by_hand([QUERY])
    write_json(root / "benchmark.json", {"category": None, "variant": None})
    assert load_own(root).category is None
    write_json(root / "benchmark.json", about)
    with pytest.raises(ValueError, match=rf"benchmark\.json: '{next(iter(about))}' must be"):
        load_own(root)


@pytest.mark.parametrize("count", ["2", 1.5, None, True, [1]])
def test_what_is_left_out_is_counted_in_whole_numbers(by_hand, write_json, count):
    root = by_hand([QUERY])
    write_json(root / "benchmark.json", {"left_out": {"queries": 2}})
    assert load_own(root).left_out == {"queries": 2}
    write_json(root / "benchmark.json", {"left_out": {"queries": 2, "answers": count}})
    with pytest.raises(ValueError, match=r"benchmark\.json: 'left_out' must be a mapping of texts to whole numbers"):
        load_own(root)


def test_lines_that_cannot_be_read_are_named(by_hand):
    root = by_hand([QUERY])
    for line, reason in ((b"[" * 10**5, "recursion"), (b"1" * 5000, "5000 digits"), (b'"\xff"', "utf-8")):
        (root / "queries.jsonl").write_bytes(b"\n" + line)
        with pytest.raises(ValueError, match=rf"line 2 of .*queries\.jsonl is no complete JSON \(.*{reason}"):
            load_own(root)
    (root / "queries.jsonl").write_bytes(b"\xef\xbb\xbf" + json.dumps(QUERY).encode())
    assert load_own(root).queries["id"] == ["1"], "an editor's byte order mark does no harm"


@pytest.mark.parametrize("format", FORMATS)
def test_a_box_that_cannot_be_cut_is_named_and_nothing_half_is_left(tmp_path, make_genecis, write_json, format):
    root = make_genecis(tmp_path / "GENECIS")
    path = root / "genecis" / "focus_attribute.json"
    item = json.loads(path.read_text())[0]
    item["target"]["instance_bbox"] = [400, 4, 6, 5]
    write_json(path, [item])
    with pytest.raises(ValueError, match=r"image '2:400,4,6,5': .*box \[400"):
        write_benchmark(load_genecis(root, "focus_attribute"), tmp_path / "own", format)
    assert not (tmp_path / "own").exists()
