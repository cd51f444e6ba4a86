"""Benchmarks in the layout of their owners, drawn on the spot."""

import random
from pathlib import Path

import pytest
from typer.testing import CliRunner

from m2c.cli import app


CIRR_NAMES = [f"dev-{number}-0-img{number % 2}" for number in range(54)]


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
def make_cirr(cirr_queries, write_json, picture):
    """Writes a split of CIRR with drawn images; that of test1 has no targets."""

    def make(root: Path, split: str = "val", names: list[str] = CIRR_NAMES) -> Path:
        folder = {"val": "dev"}.get(split, split)
        secret = ("target_hard", "target_soft")
        items = [{key: item[key] for key in item if split == "val" or key not in secret} for item in cirr_queries]
        write_json(root / "captions" / f"cap.rc2.{split}.json", items)
        write_json(root / "image_splits" / f"split.rc2.{split}.json", {name: f"./{folder}/{name}.png" for name in names})
        (root / folder).mkdir()
        for seed, name in enumerate(names):
            picture(seed).save(root / folder / f"{name}.png")
        return root

    return make


@pytest.fixture
def make_circo(write_json, picture):
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
            picture(seed).save(root / "COCO2017_unlabeled" / "unlabeled2017" / image["file_name"])
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
