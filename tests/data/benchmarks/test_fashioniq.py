import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from m2c.data.benchmarks.fashioniq import load_fashioniq


@pytest.mark.parametrize("layout", [{}, {"captions": "json", "splits": "json"}, {"captions": "", "splits": ""}])
def test_all_layouts_give_the_same_benchmark(tmp_path, make_fashioniq, layout):
    benchmark = load_fashioniq(make_fashioniq(tmp_path, **layout), category="shirt")
    assert (benchmark.name, benchmark.split, benchmark.category) == ("fashioniq", "val", "shirt")
    assert benchmark.gallery["id"] == ["shirt3", "shirt1", "shirt4", "shirt0", "shirt2"]
    query = benchmark.queries[0]
    assert (query["id"], query["reference_id"], query["target_id"]) == ("shirt-0", "shirt3", "shirt4")
    assert query["captions"] == ["has buttons. ", "is longer"]


def test_every_image_is_found_as_jpg_or_png(tmp_path, make_fashioniq, picture):
    benchmark = load_fashioniq(make_fashioniq(tmp_path))
    assert benchmark.picture(0).tobytes() == picture(3).tobytes()  # dress3.png
    assert benchmark.picture(2).size == (24, 16)  # dress4.jpg


def test_an_absent_image_is_still_listed(tmp_path, make_fashioniq):
    root = make_fashioniq(tmp_path)
    (root / "images" / "dress4.jpg").unlink()
    benchmark = load_fashioniq(root)
    assert len(benchmark.gallery) == 5
    with pytest.raises(ValueError, match=r"dress4\.jpg"):
        benchmark.picture(2)


def test_the_val_gallery_is_candidates_and_targets_in_order(tmp_path, make_fashioniq):
    benchmark = load_fashioniq(make_fashioniq(tmp_path), gallery="val")
    assert benchmark.gallery["id"] == ["dress3", "dress4", "dress1"]


@given(pairs=st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=1))
def test_the_val_gallery_has_every_named_image_once(tmp_path_factory, pairs):
    root = tmp_path_factory.mktemp("fashioniq")
    items = [f'{{"candidate": "{left}", "target": "{right}", "captions": ["", ""]}}' for left, right in pairs]
    (root / "cap.dress.val.json").write_text(f"[{', '.join(items)}]")
    seen = []
    for name in (str(name) for pair in pairs for name in pair):
        if name not in seen:
            seen.append(name)
    assert load_fashioniq(root, gallery="val").gallery["id"] == seen


def test_targets_of_test_may_be_secret(tmp_path, write_json):
    write_json(tmp_path / "cap.dress.test.json", [{"candidate": "a", "captions": ["is red", "is short"]}])
    write_json(tmp_path / "split.dress.test.json", ["a", "b"])
    assert load_fashioniq(tmp_path, "test").queries["target_id"] == [None]
    with pytest.raises(ValueError, match=r"secret targets.*use 'original'"):
        load_fashioniq(tmp_path, "test", gallery="val")


def test_a_wrong_schema_names_file_item_and_key(tmp_path, make_fashioniq, write_json):
    root = make_fashioniq(tmp_path)
    write_json(root / "image_splits" / "split.dress.val.json", ["a", 1])
    with pytest.raises(ValueError, match=r"split\.dress\.val\.json: 'ids' must be a list of texts"):
        load_fashioniq(root)
    write_json(root / "captions" / "cap.dress.val.json", [{"candidate": "a", "captions": ["", ""]}])
    with pytest.raises(ValueError, match=r"item 0 of .*cap\.dress\.val\.json has no 'target'"):
        load_fashioniq(root)


def test_a_root_one_level_too_high_or_low_is_named(tmp_path, make_fashioniq):
    make_fashioniq(tmp_path / "fashionIQ")
    with pytest.raises(ValueError, match="one level too high"):
        load_fashioniq(tmp_path)
    with pytest.raises(ValueError, match="one level too low"):
        load_fashioniq(tmp_path / "fashionIQ" / "images")


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"split": "dev"}, "no split of FashionIQ 'dev'; there is train, val, test"),
        ({"category": "hats"}, "no category of FashionIQ 'hats'; there is dress, shirt, toptee"),
        ({"gallery": "all"}, "no gallery of FashionIQ 'all'; there is original, val"),
    ],
)
def test_unknown_choices_list_what_there_is(tmp_path, arguments, message):
    with pytest.raises(ValueError, match=message):
        load_fashioniq(tmp_path, **arguments)


@pytest.mark.skipif("M2C_ANNOTATIONS" not in os.environ, reason="needs the real annotation files")
@pytest.mark.parametrize("category, queries, images", [("dress", 2017, 3817), ("shirt", 2038, 6346), ("toptee", 1961, 5373)])
def test_counts_of_the_real_files(annotations, category, queries, images):
    benchmark = load_fashioniq(annotations / "fashioniq", category=category)
    assert (len(benchmark.queries), len(benchmark.gallery)) == (queries, images)
    named = {*benchmark.queries["reference_id"], *benchmark.queries["target_id"]}
    smaller = load_fashioniq(annotations / "fashioniq", category=category, gallery="val")
    assert set(smaller.gallery["id"]) == named and len(smaller.gallery) == len(named)


@pytest.mark.parametrize("suffix", [".JPG", ".jpeg", ".PNG", ".Jpg", ".JPEG"])
def test_suffixes_of_images_are_found_in_any_case(tmp_path, make_fashioniq, suffix):
    root = make_fashioniq(tmp_path)
    image = root / "images" / "dress4.jpg"
    image.rename(image.with_suffix(suffix))
    (root / "images" / "dress4.txt").touch()
    assert load_fashioniq(root).picture(2).size == (24, 16)


def test_of_several_files_of_an_image_the_jpg_counts(tmp_path, make_fashioniq, draw):
    root = make_fashioniq(tmp_path)
    for suffix in (".png", ".jpeg", ".JPG"):
        draw(root / "images" / f"dress4{suffix}", size=(9, 9))
    assert load_fashioniq(root).picture(2).size == (24, 16)


def test_a_root_that_has_the_annotations_only_is_one_level_too_low(tmp_path, make_fashioniq):
    root = make_fashioniq(tmp_path, captions="json", splits="json")
    with pytest.raises(ValueError, match=rf"below {tmp_path}: the root given is one level too low"):
        load_fashioniq(root / "json")
