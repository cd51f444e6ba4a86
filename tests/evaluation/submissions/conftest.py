"""Made-up annotations in the schemas of CIRR and CIRCO."""

import json
import os
import random
from pathlib import Path

import pytest


WORDS = ("is painted green", "stands on a ladder", "shows one more kettle", "was taken at dusk", "has no lid")


@pytest.fixture(scope="session")
def cirr_names() -> list[str]:
    return [f"dev-{number}-{number % 4}-img{number % 2}" for number in range(70)]


@pytest.fixture(scope="session")
def cirr_queries(cirr_names) -> list[dict]:
    """Five queries, whose subsets overlap."""
    queries = []
    for number, caption in enumerate(WORDS):
        members = cirr_names[3 * number : 3 * number + 6]
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


@pytest.fixture(scope="session")
def make_cirr(cirr_names, cirr_queries):
    """Makes a valid prediction file of random names, for either metric."""

    def make(metric: str = "recall", seed: int = 0) -> dict:
        draw = random.Random(seed)
        predictions = {"version": "rc2", "metric": metric}
        for query in cirr_queries:
            pool = cirr_names if metric == "recall" else query["img_set"]["members"]
            others = [name for name in pool if name != query["reference"]]
            predictions[str(query["pairid"])] = draw.sample(others, 50 if metric == "recall" else 3)
        return predictions

    return make


@pytest.fixture(scope="session")
def circo_ids() -> list[int]:
    return [1000 + 7 * number for number in range(80)]


@pytest.fixture(scope="session")
def circo_queries(circo_ids) -> list[dict]:
    """Five queries with one to twelve answers; aspects on some, on all and on one of them."""
    draw = random.Random(3)
    queries = []
    aspects = (["viewpoint"], ["viewpoint", "addition"], ["viewpoint"], ["addition", "viewpoint"], ["negation", "viewpoint"])
    for number, (caption, count) in enumerate(zip(WORDS, (1, 2, 3, 12, 6), strict=True)):
        answers = draw.sample(circo_ids, count)
        queries.append(
            {
                "reference_img_id": circo_ids[number],
                "target_img_id": answers[0],
                "relative_caption": caption,
                "shared_concept": "a kettle",
                "gt_img_ids": answers,
                "id": number,
                "semantic_aspects": aspects[number],
            }
        )
    return queries


@pytest.fixture(scope="session")
def make_circo(circo_ids, circo_queries):
    """Makes a valid prediction file of random ids."""

    def make(seed: int = 0) -> dict:
        draw = random.Random(seed)
        return {str(query["id"]): draw.sample(circo_ids, 50) for query in circo_queries}

    return make


@pytest.fixture
def write_json():
    """Writes content as JSON, with the folders above it, and gives the path back."""

    def write(path: Path, content: object) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content), encoding="utf-8")
        return path

    return write


@pytest.fixture(scope="session")
def real_annotations() -> Path:
    """The folder with the benchmarks' own annotations, which may not lie in this repository."""
    if "M2C_ANNOTATIONS" not in os.environ:
        pytest.skip("M2C_ANNOTATIONS names no folder with the real annotations")
    return Path(os.environ["M2C_ANNOTATIONS"])
