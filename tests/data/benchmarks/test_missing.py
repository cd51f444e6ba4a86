import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import Dataset, Image

from m2c.data.benchmarks import (
    GALLERY_FEATURES,
    QUERY_FEATURES,
    Benchmark,
    check_benchmark,
    load_cirr,
    load_own,
    make_query,
    missing,
)
from m2c.data.benchmarks.circo import load_circo
from m2c.data.benchmarks.genecis import load_genecis
from m2c.data.benchmarks.own import IMAGES


@pytest.fixture
def report(tmp_path):
    return tmp_path / "output" / "missing.txt"


@pytest.fixture
def root(tmp_path, make_cirr):
    return make_cirr(tmp_path / "CIRR")


def test_a_complete_benchmark_comes_back_as_it_is(root, report):
    lines = []
    benchmark = load_cirr(root)
    assert check_benchmark(benchmark, False, report) is benchmark
    assert check_benchmark(benchmark, True, report, lines.append) is benchmark
    assert lines == ["cirr val: all 8 image files are there"]
    assert not report.parent.exists()


def test_a_file_of_the_name_of_the_report_stays_while_nothing_is_missing(root, report):
    report.parent.mkdir()
    report.write_text("somebody's notes")
    check_benchmark(load_cirr(root), True, report)
    assert report.read_text() == "somebody's notes"


@pytest.mark.parametrize("allow_missing", [False, True])
def test_a_list_that_cannot_be_written_hides_no_counts(root, report, allow_missing):
    (root / "dev" / "dev-2-0-img0.png").unlink()
    report.parent.write_text("no folder")
    with pytest.raises(ValueError, match=r"1 are missing and 0 unreadable") as caught:
        check_benchmark(load_cirr(root), allow_missing, report)
    message = str(caught.value)
    assert f"could not be written to {report} (" in message and "The whole list is in" not in message
    assert ("--allow_missing" in message) is not allow_missing and "where files can be written" in message
    assert isinstance(caught.value.__cause__, OSError)


def test_it_stops_with_counts_names_and_the_list(root, report):
    (root / "dev" / "dev-2-0-img0.png").unlink()
    (root / "dev" / "dev-5-0-img0.png").write_text("<html>gone</html>")
    whole = root / "dev" / "dev-7-0-img0.png"
    whole.write_bytes(whole.read_bytes()[:-200])
    with pytest.raises(ValueError) as caught:
        check_benchmark(load_cirr(root), False, report)
    message = str(caught.value)
    assert "cirr val has 3 queries and 8 gallery images" in message
    assert "1 are missing and 2 unreadable" in message
    assert f"{root / 'dev' / 'dev-2-0-img0.png'}: missing" in message
    assert str(report) in message and "--allow_missing" in message and "no folder" not in message
    lines = [line.split("\t") for line in report.read_text().splitlines()]
    assert [path.rsplit("/")[-1] for path, _ in lines] == ["dev-2-0-img0.png", "dev-5-0-img0.png", "dev-7-0-img0.png"]
    assert lines[0][1] == "missing" and lines[1][1].startswith("not an image") and "truncated" in lines[2][1]


def test_an_absent_folder_is_named(root, report):
    (root / "dev").rename(root / "pictures")
    with pytest.raises(ValueError, match=rf"8 are missing .*\.\.\.\)\. .* There is no folder {root / 'dev'}\."):
        check_benchmark(load_cirr(root), False, report)
    with pytest.raises(ValueError, match="No query is left to measure"):
        check_benchmark(load_cirr(root), True, report)


def test_what_is_missing_is_left_out_everywhere(root, report):
    # The target of the second query and the reference of the third; a member of the first one's subset.
    (root / "dev" / "dev-2-0-img0.png").unlink()
    before, lines = load_cirr(root), []
    after = check_benchmark(before, True, report, lines.append)
    (line,) = lines
    assert "cirr val has 3 queries and 8 gallery images" in line and "1 are missing and 0 unreadable" in line
    assert f"The whole list is in {report}" in line and line.endswith("Going on with 1 queries and 7 gallery images")
    assert after.left_out == {"gallery images": 1, "queries": 2, "subset members": 1}
    assert after.gallery["id"] == [name for name in before.gallery["id"] if name != "dev-2-0-img0"]
    assert after.queries["id"] == ["10"]
    assert after.queries["subset_ids"][0] == [f"dev-{number}-0-img0" for number in (1, 3, 4, 5)]
    assert after.positions()["dev-3-0-img0"] == 2
    assert after.picture(2).tobytes() == before.picture(3).tobytes()
    assert before.left_out == {} and len(before.gallery) == 8
    assert "dev-2-0-img0.png\tmissing" in report.read_text()


def test_a_query_stays_while_it_has_target_and_an_answer(tmp_path, make_circo, report):
    root = make_circo(tmp_path / "CIRCO")
    (root / "COCO2017_unlabeled" / "unlabeled2017" / "000000000009.jpg").unlink()
    benchmark = check_benchmark(load_circo(root), True, report)
    assert benchmark.left_out == {"gallery images": 1, "answers": 2}
    assert benchmark.queries["answer_ids"] == [["7"], ["7"]]
    again = check_benchmark(load_circo(root, "test"), True, report)
    assert again.left_out == {"gallery images": 1} and again.queries["target_id"] == [None]


def test_a_query_without_any_answer_left_is_left_out(make_benchmark, tmp_path, draw, report):
    paths = [str(draw(tmp_path / f"{name}.png")) for name in "ab"] + [str(tmp_path / "c.png")]
    columns = {"id": ["a", "b", "c"], "image": paths, "box": [[]] * 3}
    queries = [make_query("1", "a", ["x"], None, answer_ids=["c"]), make_query("2", "a", ["x"], None, answer_ids=["c", "b"])]
    gallery = Dataset.from_dict(columns, features=GALLERY_FEATURES)
    benchmark = Benchmark(
        "mine", "val", gallery, Dataset.from_list(queries, features=QUERY_FEATURES), left_out={"gallery images": 4}
    )
    after = check_benchmark(benchmark, True, report)
    assert after.queries["id"] == ["2"]
    assert after.left_out == {"gallery images": 5, "queries": 1, "answers": 1}


def test_boxes_of_one_file_are_missing_together(tmp_path, make_genecis, report):
    root = make_genecis(tmp_path / "GENECIS")
    (root / "VG_100K" / "2.jpg").unlink()
    with pytest.raises(ValueError, match="No query is left"):
        check_benchmark(load_genecis(root, "focus_attribute"), True, report)
    make_genecis(root)
    (root / "VG_100K_2" / "3.jpg").unlink()
    benchmark = check_benchmark(load_genecis(root, "focus_attribute"), True, report)
    assert benchmark.left_out == {"gallery images": 1, "subset members": 2}
    assert benchmark.picture(0).size == (10, 10)


@pytest.fixture
def broken(make_benchmark, tmp_path, draw) -> Benchmark:
    """Images in every condition that a parquet file can have them in; `b` and `d` are whole."""
    rows = make_benchmark().gallery.cast_column("image", Image(decode=False))["image"]
    whole = rows[0]["bytes"]
    images = {
        "a": {"bytes": b"<html>gone</html>", "path": "a.png"},
        "b": rows[1],
        "c": None,
        "d": {"bytes": None, "path": str(draw(tmp_path / "d.png"))},
        "e": {"bytes": None, "path": str(tmp_path / "d.jpg")},
        "f": {"bytes": whole[:-200], "path": None},
        "g": {"bytes": b"", "path": None},
        "h": {"bytes": None, "path": None},
    }
    columns = {"id": list(images), "image": list(images.values())}
    queries = [make_query("1", "b", ["x"], "d", subset_ids=["a", "d"]), make_query("2", "b", ["x"], "h")]
    (tmp_path / "queries.jsonl").write_text("\n".join(map(json.dumps, queries)))
    pq.write_table(pa.Table.from_pydict(columns, IMAGES.arrow_schema), tmp_path / "gallery.parquet")
    return load_own(tmp_path)


def test_images_that_carry_their_bytes_are_looked_at_and_named_by_id(make_benchmark, broken, report, tmp_path):
    benchmark = make_benchmark()
    assert check_benchmark(benchmark, False, report) is benchmark
    with pytest.raises(ValueError, match=r"3 are missing and 3 unreadable \(image 'a': not an image") as caught:
        check_benchmark(broken, False, report)
    assert "no folder" not in str(caught.value)
    problems = dict(line.split("\t") for line in report.read_text().splitlines())
    assert list(problems) == ["image 'a'", "image 'c'", str(tmp_path / "d.jpg"), "image 'f'", "image 'g'", "image 'h'"]
    reasons = list(problems.values())
    assert reasons[1:3] == ["no image", "missing"] and "truncated" in reasons[3] and reasons[4:] == ["empty", "no image"]


def test_images_that_carry_broken_bytes_are_left_out(broken, report):
    after = check_benchmark(broken, True, report)
    assert after.gallery["id"][:] == ["b", "d"] and after.queries["id"][:] == ["1"]
    assert after.left_out == {"gallery images": 6, "queries": 1, "subset members": 1}
    assert after.picture(0).size == after.picture(1).size


def test_more_rows_than_are_read_at_once(make_benchmark, report, monkeypatch):
    monkeypatch.setattr(missing, "ROWS_AT_ONCE", 2)
    benchmark = make_benchmark()
    benchmark.gallery = benchmark.gallery.select([4, 3, 2, 1, 0])
    assert check_benchmark(benchmark, False, report) is benchmark


def test_a_gallery_that_is_a_selection_is_checked_by_its_own_rows(root, report):
    (root / "dev" / "dev-7-0-img0.png").unlink()
    benchmark = load_cirr(root)
    benchmark.gallery = benchmark.gallery.select([3, 2, 1, 0])
    assert check_benchmark(benchmark, False, report) is benchmark


def test_a_path_that_no_file_can_have_is_listed(root, report, write_json):
    path = root / "image_splits" / "split.rc2.val.json"
    write_json(path, {**json.loads(path.read_text()), "dev-7-0-img0": "./dev/a\0b.png"})
    with pytest.raises(ValueError, match="0 are missing and 1 unreadable"):
        check_benchmark(load_cirr(root), False, report)
    assert "unreadable (embedded null byte)" in report.read_text()
