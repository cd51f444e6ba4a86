import pytest

from m2c.data.benchmarks import load_benchmark, write_benchmark


def test_every_benchmark_by_its_name(tmp_path, make_cirr, make_circo, make_fashioniq, make_genecis):
    makers = {"cirr": make_cirr, "circo": make_circo, "fashioniq": make_fashioniq, "genecis": make_genecis}
    categories = {
        "cirr": [None],
        "circo": [None],
        "fashioniq": ["dress", "shirt", "toptee"],
        "genecis": ["focus_attribute", "change_attribute", "focus_object", "change_object"],
    }
    for name, make in makers.items():
        loaded = load_benchmark(name, make(tmp_path / name))
        assert [benchmark.category for benchmark in loaded] == categories[name]
        assert {(benchmark.name, benchmark.split) for benchmark in loaded} == {(name, "val")}
    assert load_benchmark("circo", tmp_path / "circo", "test")[0].split == "test"
    (shirt,) = load_benchmark("fashioniq", tmp_path / "fashioniq", category="shirt", gallery="val")
    assert shirt.category == "shirt" and len(shirt.gallery) == 3
    (task,) = load_benchmark("genecis", tmp_path / "genecis", category="change_object")
    assert task.category == "change_object"


def test_ones_own(tmp_path, make_benchmark):
    root = write_benchmark(make_benchmark(split="autumn"), tmp_path / "mine")
    assert load_benchmark("own", root)[0].split == "autumn"
    assert load_benchmark("own", root, "autumn")[0].split == "autumn"
    with pytest.raises(ValueError, match=r"no split of .*mine 'val'; there is autumn"):
        load_benchmark("own", root, "val")


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"name": "coco"}, "no benchmark 'coco'; there is cirr, circo, fashioniq, genecis, own"),
        ({"name": "cirr", "split": "test"}, "no split of cirr 'test'; there is train, val, test1"),
        ({"name": "genecis", "split": "test"}, "no split of genecis 'test'; there is val"),
        ({"name": "fashioniq", "category": "hats"}, "no category of fashioniq 'hats'; there is dress, shirt, toptee"),
        ({"name": "genecis", "category": "dress"}, "no category of genecis 'dress'; there is focus_attribute"),
        (
            {"name": "cirr", "category": "dress"},
            "cirr has no category 'dress'; categories are FashionIQ's, and GeneCIS's tasks",
        ),
        ({"name": "own", "category": "dress"}, "own has no category 'dress'; categories are FashionIQ's"),
        ({"name": "cirr", "gallery": "val"}, "cirr has no gallery 'val'; the choice of a gallery is FashionIQ's"),
        ({"name": "fashioniq", "gallery": "all"}, "no gallery of fashioniq 'all'; there is original, val"),
    ],
)
def test_unknown_choices_list_what_there_is(tmp_path, arguments, message):
    with pytest.raises(ValueError, match=message):
        load_benchmark(root=tmp_path, **arguments)
