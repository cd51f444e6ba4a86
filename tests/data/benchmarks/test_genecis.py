import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from m2c.data.benchmarks.genecis import cut_to_box, load_genecis


LAYOUTS = [
    {},
    {"tasks": "", "coco": "coco2017/val2017", "genome": ("Visual_Genome/VG_All",)},
    {"tasks": "json", "coco": "images/val2017", "genome": ("VG_100K_all",)},
    {"genome": ("images/VG_100K", "images/VG_100K_2")},
]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("task", ["focus_object", "change_object"])
def test_object_tasks_are_whole_images_of_coco(tmp_path, make_genecis, task, layout):
    benchmark = load_genecis(make_genecis(tmp_path, **layout), task)
    assert (benchmark.name, benchmark.split, benchmark.category) == ("genecis", "val", task)
    assert benchmark.gallery["id"] == ["1", "2", "3", "4"] and benchmark.gallery["box"] == [[]] * 4
    query = benchmark.queries[0]
    assert (query["id"], query["reference_id"], query["target_id"]) == (f"{task}-0", "1", "2")
    assert query["captions"] == ["table"] and query["subset_ids"] == ["2", "3", "4"]
    assert benchmark.picture(3).size == (24, 16)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("task", ["focus_attribute", "change_attribute"])
def test_attribute_tasks_are_boxes_in_visual_genome(tmp_path, make_genecis, task, layout):
    benchmark = load_genecis(make_genecis(tmp_path, **layout), task)
    assert benchmark.gallery["id"] == ["1:8,4,6,5", "2:9,4,6,5", "1:2,4,6,5", "3:7.5,4,6,5"]
    assert benchmark.gallery["box"][3] == [7.5, 4, 6, 5]
    assert len(benchmark.queries) == 2
    query = benchmark.queries[1]
    assert (query["reference_id"], query["captions"]) == ("1:8,4,6,5", ["shiny"])
    assert query["subset_ids"] == ["2:9,4,6,5", "1:2,4,6,5", "3:7.5,4,6,5"]
    assert [benchmark.picture(position).size for position in range(4)] == [(10, 10)] * 3 + [(11, 11)]


@given(
    size=st.tuples(st.integers(20, 60), st.integers(20, 60)),
    corner=st.tuples(st.integers(0, 19), st.integers(0, 19)),
    extent=st.tuples(st.integers(1, 60), st.integers(1, 60)),
    seed=st.integers(0, 100),
)
def test_the_box_grows_by_its_dilation_and_is_padded_to_a_square(size, corner, extent, seed):
    pixels = np.random.default_rng(seed).integers(1, 256, (size[1], size[0], 3), dtype=np.uint8)
    spans = []
    for limit, start, length in zip(size, corner, extent):
        first = max(0.0, start - 0.7 * length)
        spans.append((round(first), round(min(limit, first + 1.7 * length))))
    (left, right), (top, bottom) = spans
    cut = np.asarray(cut_to_box(Image.fromarray(pixels), [*corner, *extent]))
    height, width = bottom - top, right - left
    side = max(height, width)
    assert cut.shape == (side, side, 3)
    above, before = (side - height) // 2, (side - width) // 2
    assert (cut[above : above + height, before : before + width] == pixels[top:bottom, left:right]).all()
    cut = cut.copy()
    cut[above : above + height, before : before + width] = 0
    assert not cut.any()


def test_an_unclipped_box_keeps_its_right_and_lower_edge():
    pixels = np.zeros((40, 40, 3), dtype=np.uint8)
    pixels[20:30, 20:30] = 255
    cut = np.asarray(cut_to_box(Image.fromarray(pixels), [20, 20, 10, 10]))
    assert cut.shape == (17, 17, 3)
    assert (cut[7:, 7:] == 255).all() and cut.astype(int).sum() == 3 * 255 * 100


def test_a_wrong_schema_names_file_entry_and_key(tmp_path, make_genecis, write_json):
    root = make_genecis(tmp_path)
    item = {"reference": {"val_image_id": 1}, "target": {"val_image_id": 2}, "gallery": [{}], "condition": "sky"}
    path = write_json(root / "genecis" / "focus_object.json", [item])
    with pytest.raises(ValueError, match=rf"entry 0 of 'gallery' of item 0 of {path} has no 'val_image_id'"):
        load_genecis(root, "focus_object")
    write_json(root / "genecis" / "focus_attribute.json", [item])
    with pytest.raises(ValueError, match=r"'reference' of item 0 of .* has no 'image_id'"):
        load_genecis(root, "focus_attribute")
    del item["condition"]
    write_json(path, [item])
    with pytest.raises(ValueError, match=r"item 0 of .* has no 'condition'"):
        load_genecis(root, "focus_object")
    short = {"image_id": 1, "instance_bbox": [1, 2, 3]}
    item = {"reference": short, "target": short, "gallery": [], "condition": "red"}
    write_json(root / "genecis" / "focus_attribute.json", [item])
    with pytest.raises(ValueError, match=r"'instance_bbox' must be a box \[x, y, width, height\], not \[1, 2, 3\]"):
        load_genecis(root, "focus_attribute")


def test_a_root_one_level_too_high_or_low_is_named(tmp_path, make_genecis):
    make_genecis(tmp_path / "GENECIS")
    with pytest.raises(ValueError, match="one level too high"):
        load_genecis(tmp_path)
    with pytest.raises(ValueError, match="one level too low"):
        load_genecis(tmp_path / "GENECIS" / "val2017")


def test_an_unknown_task_lists_what_there_is(tmp_path):
    with pytest.raises(ValueError, match="no task of GeneCIS 'colour'; there is focus_attribute, change_attribute"):
        load_genecis(tmp_path, "colour")


@pytest.mark.parametrize(
    "box",
    [
        [40, 5, 6, 5],
        [5, 30, 6, 5],
        [-6, 5, 6, 5],
        [5, -9, 6, 5],
        [5, 5, 0, 5],
        [5, 5, 6, -1],
        [5, 5, 0.1, 6],
        [5, 5, float("nan"), 6],
    ],
)
def test_a_box_outside_the_picture_or_of_no_area_is_named(tmp_path, make_genecis, write_json, box):
    picture = Image.new("RGB", (40, 30))
    with pytest.raises(ValueError) as caught:
        cut_to_box(picture, box)
    message = str(caught.value)
    assert str(box) in message and "40 x 30" in message
    crop = {"image_id": 1, "instance_bbox": box}
    item = {"reference": crop, "target": {"image_id": 2, "instance_bbox": [1, 1, 9, 9]}, "gallery": [], "condition": "red"}
    root = make_genecis(tmp_path)
    write_json(root / "genecis" / "focus_attribute.json", [item])
    benchmark = load_genecis(root, "focus_attribute")
    with pytest.raises(ValueError, match=r"image '1:.*': .*40 x 30"):
        benchmark.picture(0)


def test_a_box_that_is_partly_outside_is_cut():
    picture = Image.new("RGB", (40, 30))
    assert cut_to_box(picture, [-3, -3, 6, 6]).size == (10, 10)
    assert cut_to_box(picture, [38, 28, 10, 10]).size == (9, 9)


@pytest.mark.parametrize("task", ["focus_object", "focus_attribute"])
def test_a_root_that_has_the_annotations_only_is_one_level_too_low(tmp_path, make_genecis, task):
    with pytest.raises(ValueError, match=rf"below {tmp_path}: the root given is one level too low"):
        load_genecis(make_genecis(tmp_path) / "genecis", task)
