"""Tiny benchmarks in the layouts of the real ones, with invented sentences and images drawn on the spot."""

import io
import os
from pathlib import Path

import datasets
import numpy as np
import pytest
from datasets import Dataset
from PIL import Image

from m2c.data.benchmarks import GALLERY_FEATURES, QUERY_FEATURES, Benchmark, make_query


CIRR_IMAGES = [f"dev-{number}-0-img0" for number in range(8)]


@pytest.fixture(autouse=True)
def datasets_cache(tmp_path_factory, monkeypatch):
    """What `datasets` prepares of a parquet file does not stay after the tests."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))


@pytest.fixture
def annotations() -> Path:
    """The real annotation files."""
    return Path(os.environ["M2C_ANNOTATIONS"])


def _picture(seed: int, size: tuple[int, int] = (24, 16)) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    return Image.fromarray(pixels)


@pytest.fixture
def picture():
    return _picture


@pytest.fixture
def draw():
    """Draws an image file, its folders included."""

    def draw(path: Path, seed: int = 0, size: tuple[int, int] = (24, 16)) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        _picture(seed, size).save(path)
        return path

    return draw


@pytest.fixture
def cirr_items() -> list[dict]:
    """Three queries of `val`; the members of each set are its first six images."""
    return [
        {
            "pairid": 10 + number,
            "reference": CIRR_IMAGES[number],
            "target_hard": CIRR_IMAGES[number + 1],
            "target_soft": {CIRR_IMAGES[number + 1]: 1.0},
            "caption": f"the kettle is blue, number {number}",
            "img_set": {"id": 3, "members": CIRR_IMAGES[:6], "reference_rank": number, "target_rank": number + 1},
        }
        for number in range(3)
    ]


@pytest.fixture
def make_cirr(cirr_items, write_json, draw):
    """Writes CIRR's val split; arguments name the folders, or other items."""

    def make(root: Path, captions="captions", splits="image_splits", images="", items=cirr_items) -> Path:
        write_json(root / captions / "cap.rc2.val.json", items)
        write_json(root / splits / "split.rc2.val.json", {name: f"./dev/{name}.png" for name in CIRR_IMAGES})
        for number, name in enumerate(CIRR_IMAGES):
            draw(root / images / "dev" / f"{name}.png", number)
        return root

    return make


@pytest.fixture
def make_circo(write_json, draw):
    """Writes CIRCO's val and test split over six images."""

    def make(root: Path, queries="annotations", coco="COCO2017_unlabeled", info="annotations") -> Path:
        query = {"reference_img_id": 5, "relative_caption": "has two lamps", "shared_concept": "a desk", "id": 0}
        answers = {"target_img_id": 7, "gt_img_ids": [7, 9], "semantic_aspects": ["cardinality", "addition"]}
        write_json(root / queries / "val.json", [{**query, **answers}, {**query, **answers, "reference_img_id": 1, "id": 1}])
        write_json(root / queries / "test.json", [query])
        names = {number: f"{number:012d}.jpg" for number in range(1, 12, 2)}
        listed = [{"id": number, "file_name": name, "license": 1} for number, name in names.items()]
        write_json(root / coco / info / "image_info_unlabeled2017.json", {"images": listed})
        for number, name in names.items():
            draw(root / coco / "unlabeled2017" / name, number)
        return root

    return make


@pytest.fixture
def make_fashioniq(write_json, draw):
    """Writes FashionIQ's val split: ids `<category>0` to `<category>4`, shuffled, the odd ones as PNG."""

    def make(root: Path, captions="captions", splits="image_splits") -> Path:
        for category in ("dress", "shirt", "toptee"):
            ids = [f"{category}{number}" for number in (3, 1, 4, 0, 2)]
            items = [
                {"candidate": ids[0], "target": ids[2], "captions": ["has buttons. ", "is longer"]},
                {"candidate": ids[2], "target": ids[1], "captions": ["is green", ""]},
            ]
            write_json(root / captions / f"cap.{category}.val.json", items)
            write_json(root / splits / f"split.{category}.val.json", ids)
            for name in ids:
                draw(root / "images" / (name + (".png" if int(name[-1]) % 2 else ".jpg")), int(name[-1]))
        return root

    return make


@pytest.fixture
def make_genecis(write_json, draw):
    """Writes the four tasks of GeneCIS, one query each, or two for the attribute tasks."""

    def make(root: Path, tasks="genecis", coco="val2017", genome=("VG_100K", "VG_100K_2")) -> Path:
        def crop(image: int, x: float) -> dict:
            return {"image_id": image, "instance_bbox": [x, 4, 6, 5], "object_name": "cup"}

        for kind in ("focus", "change"):
            objects = [{"val_image_id": number} for number in (1, 2, 3, 4)]
            item = {"reference": objects[0], "target": objects[1], "gallery": objects[2:], "condition": "table"}
            write_json(root / tasks / f"{kind}_object.json", [item])
            item = {"reference": crop(1, 8), "target": crop(2, 9), "gallery": [crop(1, 2), crop(3, 7.5)], "condition": "red"}
            write_json(root / tasks / f"{kind}_attribute.json", [item, {**item, "condition": "shiny"}])
        for number in (1, 2, 3, 4):
            draw(root / coco / f"{number:012d}.jpg", number)
            draw(root / genome[number % len(genome)] / f"{number}.jpg", number, (40, 30))
        return root

    return make


def _png(seed: int) -> dict:
    buffer = io.BytesIO()
    _picture(seed).save(buffer, "PNG")
    return {"bytes": buffer.getvalue(), "path": None}


@pytest.fixture
def make_benchmark():
    """A benchmark in memory over the images `a`, `b`, ..., with the given queries or one plain one."""

    def make(ids="abcde", queries: list[dict] | None = None, **fields) -> Benchmark:
        queries = queries or [make_query("1", "a", ["in red"], "b", subset_ids=["b", "c"], answer_ids=["b", "d"])]
        columns = {"id": list(ids), "image": [_png(seed) for seed in range(len(ids))], "box": [[] for _ in ids]}
        gallery = Dataset.from_dict(columns, features=GALLERY_FEATURES)
        fields = {"name": "mine", "split": "val", **fields}
        return Benchmark(gallery=gallery, queries=Dataset.from_list(queries, features=QUERY_FEATURES), **fields)

    return make
