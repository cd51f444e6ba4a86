import pytest
from datasets import Dataset

from m2c.data.benchmarks import GALLERY_FEATURES, QUERY_FEATURES, Benchmark, check_benchmark, load_cirr, make_query
from m2c.data.benchmarks.circo import load_circo
from m2c.data.benchmarks.genecis import load_genecis


@pytest.fixture
def report(tmp_path):
    return tmp_path / "output" / "missing.txt"


@pytest.fixture
def root(tmp_path, make_cirr):
    return make_cirr(tmp_path / "CIRR")


def test_a_complete_benchmark_comes_back_as_it_is(root, report):
    report.parent.mkdir()
    report.write_text("the list of an earlier run")
    benchmark = load_cirr(root)
    assert check_benchmark(benchmark, False, report) is benchmark
    assert not report.exists()


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
    before = load_cirr(root)
    after = check_benchmark(before, True, report)
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


def test_images_that_carry_their_bytes_are_there(make_benchmark, report):
    benchmark = make_benchmark()
    assert check_benchmark(benchmark, False, report) is benchmark


def test_a_gallery_that_is_a_selection_is_checked_by_its_own_rows(root, report):
    (root / "dev" / "dev-7-0-img0.png").unlink()
    benchmark = load_cirr(root)
    benchmark.gallery = benchmark.gallery.select([3, 2, 1, 0])
    assert check_benchmark(benchmark, False, report) is benchmark
