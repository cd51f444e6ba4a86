"""Tiny benchmarks drawn on the spot, retrievers made of the shipped CLIP, and a count of what its vision tower encodes."""

import io
import json
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import Dataset
from PIL import Image
from transformers.models.clip.modeling_clip import CLIPVisionModel
from typer.testing import CliRunner

from m2c.checkpoints import load_model, load_processor, save_retriever
from m2c.cli import app
from m2c.data.benchmarks import GALLERY_FEATURES, QUERY_FEATURES, Benchmark, make_query
from m2c.data.benchmarks.scenes import load_scenes
from m2c.evaluation.evaluate import Options


CIRR_NAMES = [f"dev-{number}-0-img{number % 2}" for number in range(54)]


def _picture(seed: int, size: tuple[int, int] = (24, 16)) -> Image.Image:
    coarse = np.random.default_rng(seed).integers(0, 256, (2, 3, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize(size, Image.Resampling.NEAREST)


def _png(seed: int) -> dict:
    buffer = io.BytesIO()
    _picture(seed).save(buffer, "PNG")
    return {"bytes": buffer.getvalue(), "path": None}


@pytest.fixture(scope="session")
def picture():
    return _picture


@pytest.fixture
def write_json():
    def write(path: Path, content) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content), encoding="utf-8")
        return path

    return write


@pytest.fixture(scope="session")
def make_benchmark():
    """A benchmark over images with the given ids, whose pictures are drawn by their place, or files of the given paths."""

    def make(ids="abcdef", queries: list[dict] | None = None, paths: list[Path] | None = None, **fields) -> Benchmark:
        queries = queries or [make_query("0", ids[0], ["in red"], ids[1]), make_query("1", ids[-1], ["with a dot"], ids[0])]
        images = [_png(place) for place in range(len(ids))] if paths is None else [str(path) for path in paths]
        columns = {"id": list(ids), "image": images, "box": fields.pop("boxes", [[] for _ in ids])}
        gallery = Dataset.from_dict(columns, features=GALLERY_FEATURES)
        fields = {"name": "mine", "split": "val", **fields}
        return Benchmark(gallery=gallery, queries=Dataset.from_list(queries, features=QUERY_FEATURES), **fields)

    return make


@pytest.fixture(scope="session")
def scenes() -> Benchmark:
    return load_scenes(num_queries=20)


@torch.no_grad()
def _save_retriever(path: Path, seed: int, **config) -> str:
    """The shipped CLIP with M2C modules whose weights are large enough for an image to matter."""
    torch.manual_seed(seed)
    model = load_model("scenes", mapper_hidden_size=16, injection_hidden_size=16, **config)
    for name, tensor in model.state_dict().items():
        if name.startswith(("token_mapper", "semantic_injection")) and name.endswith("weight"):
            tensor.normal_(std=0.2)
    save_retriever(model.eval(), load_processor("scenes"), path)
    return str(path)


@pytest.fixture(scope="session")
def save_untrained():
    """Saves an untrained retriever over the shipped CLIP: by folder, seed and fields of its configuration."""
    return _save_retriever


@pytest.fixture(scope="session")
def injecting(tmp_path_factory) -> str:
    return _save_retriever(tmp_path_factory.mktemp("models") / "injecting", 0, injection_layers=[0, 1])


@pytest.fixture(scope="session")
def mapping(tmp_path_factory) -> str:
    """A retriever without injection."""
    return _save_retriever(tmp_path_factory.mktemp("models") / "mapping", 1, injection_layers=[])


@pytest.fixture(scope="session")
def adapted(injecting, tmp_path_factory) -> str:
    """`injecting` with an adapter of its composing encoder, which changes what it composes."""
    from peft import LoraConfig

    torch.manual_seed(2)
    model = load_model(injecting)
    model.add_adapter(LoraConfig(r=2, target_modules=r"composing_encoder\..*(q_proj|v_proj)", init_lora_weights=False))
    path = tmp_path_factory.mktemp("models") / "adapted"
    save_retriever(model.eval(), load_processor(injecting), path)
    return str(path)


class VisionTower:
    """Counts the images that go through any vision tower, and breaks down before it takes more than `limit`."""

    def __init__(self):
        self.images, self.limit = 0, None

    def take(self, count: int) -> None:
        if self.limit is not None and self.images + count > self.limit:
            raise KeyboardInterrupt
        self.images += count

    def count(self, run, *args, **kwargs) -> int:
        """How many images a call encodes."""
        before = self.images
        run(*args, **kwargs)
        return self.images - before


@pytest.fixture
def tower(monkeypatch) -> VisionTower:
    tower, forward = VisionTower(), CLIPVisionModel.forward

    def counted(self, pixel_values, *args, **kwargs):
        tower.take(len(pixel_values))
        return forward(self, pixel_values, *args, **kwargs)

    monkeypatch.setattr(CLIPVisionModel, "forward", counted)
    return tower


@pytest.fixture
def options(tmp_path):
    """Options with a store of this test's own."""

    def make(**fields) -> Options:
        return Options(**{"cache_dir": tmp_path / "cache", "device": "cpu", **fields})

    return make


@pytest.fixture
def cirr_queries() -> list[dict]:
    """Five queries of CIRR's val split, the last with a blank caption."""
    captions = ("is painted green", "stands on a ladder", "shows one more kettle", "was taken at dusk", "")
    queries = []
    for number, caption in enumerate(captions):
        members = CIRR_NAMES[4 * number : 4 * number + 6]
        queries.append(
            {
                "pairid": 100 + number,
                "reference": members[2],
                "target_hard": members[4],
                "target_soft": {members[4]: 1.0},
                "caption": caption,
                "img_set": {"id": number, "members": members, "reference_rank": 2, "target_rank": 4},
            }
        )
    return queries


@pytest.fixture
def make_cirr(cirr_queries, write_json):
    """Writes a split of CIRR with drawn images; that of test1 has no targets."""

    def make(root: Path, split: str = "val", names: list[str] = CIRR_NAMES) -> Path:
        folder = {"val": "dev"}.get(split, split)
        secret = ("target_hard", "target_soft")
        items = [{key: item[key] for key in item if split == "val" or key not in secret} for item in cirr_queries]
        write_json(root / "captions" / f"cap.rc2.{split}.json", items)
        write_json(root / "image_splits" / f"split.rc2.{split}.json", {name: f"./{folder}/{name}.png" for name in names})
        (root / folder).mkdir()
        for seed, name in enumerate(names):
            _picture(seed).save(root / folder / f"{name}.png")
        return root

    return make


@pytest.fixture
def make_circo(write_json):
    """Writes CIRCO's val and test split over 52 images, the targets of val with more answers and aspects."""

    def make(root: Path) -> Path:
        ids = [1000 + 7 * number for number in range(52)]
        draw = random.Random(3)
        queries = {"val": [], "test": []}
        for number, aspects in enumerate((["viewpoint"], ["viewpoint", "addition"], ["addition"])):
            answers = draw.sample(ids, 2 + number)
            query = {"reference_img_id": ids[number], "relative_caption": "has no lid", "shared_concept": "a kettle"}
            secret = {"target_img_id": answers[0], "gt_img_ids": answers, "semantic_aspects": aspects}
            queries["test"].append({**query, "id": number})
            queries["val"].append({**query, "id": number, **secret})
        for split, items in queries.items():
            write_json(root / "annotations" / f"{split}.json", items)
        images = [{"id": number, "file_name": f"{number:012d}.png"} for number in ids]
        info = root / "COCO2017_unlabeled" / "annotations" / "image_info_unlabeled2017.json"
        write_json(info, {"images": images})
        (root / "COCO2017_unlabeled" / "unlabeled2017").mkdir()
        for seed, image in enumerate(images):
            _picture(seed).save(root / "COCO2017_unlabeled" / "unlabeled2017" / image["file_name"])
        return root

    return make


@pytest.fixture
def command(tmp_path, monkeypatch):
    """Runs `m2c` in an empty working folder with a store of this test's own."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")

    def run(*arguments):
        extra = ["--cache_dir", str(tmp_path / "cache")] if arguments[0] == "evaluate" else []
        return CliRunner().invoke(app, [*map(str, arguments), *extra])

    return run
