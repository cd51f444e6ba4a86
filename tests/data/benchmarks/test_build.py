from pathlib import Path

import pytest

from m2c.data.benchmarks.build import build_benchmark
from m2c.data.benchmarks.form import make_query


def _build(*queries: dict, images: str = "abc"):
    return build_benchmark("mine", "val", {name: f"/nowhere/{name}.jpg" for name in images}, list(queries), Path("q.json"))


def test_no_image_is_touched_and_the_order_stays():
    benchmark = _build(make_query("1", "c", ["in red"], "a"), images="cab")
    assert benchmark.gallery["id"] == ["c", "a", "b"] and benchmark.positions() == {"c": 0, "a": 1, "b": 2}
    with pytest.raises(ValueError, match=r"/nowhere/c\.jpg"):
        benchmark.picture(0)


@pytest.mark.parametrize(
    "query, key",
    [
        (make_query("2", "x", [""], "a"), "reference_id"),
        (make_query("2", "a", [""], "x"), "target_id"),
        (make_query("2", "a", [""], "b", subset_ids=["b", "x"]), "subset_ids"),
        (make_query("2", "a", [""], "b", answer_ids=["b", "x"]), "answer_ids"),
    ],
)
def test_a_name_that_is_not_in_the_gallery_is_an_error(query, key):
    with pytest.raises(ValueError, match=rf"item 1 of q\.json: 'x' \({key}\) is not among the 3 images"):
        _build(make_query("1", "a", [""], None), query)


def test_a_file_without_queries_is_an_error():
    with pytest.raises(ValueError, match=r"q\.json has no queries"):
        _build()


def test_a_query_id_that_comes_twice_is_an_error():
    query = make_query("1", "a", [""], None)
    with pytest.raises(ValueError, match=r"item 1 of q\.json: the query id '1' is also that of item 0 of q\.json"):
        _build(query, query)
