"""CIRCO (arXiv 2303.15247): its prediction file, and the figures of its evaluator."""

from collections.abc import Collection, Sequence
from itertools import chain
from reprlib import repr as shorten

import torch

from m2c.evaluation.metrics import mean_average_precision_at_k, recall_at_k
from m2c.evaluation.protocols import PROTOCOLS

from .problems import entries_of, named, numbered, query_problems, ranking_problems


LENGTH = 50
_PROTOCOL = PROTOCOLS["circo"]


def validate_circo(predictions: dict, queries: Sequence[dict], gallery_ids: Collection[int] | None = None) -> list[str]:
    """Every reason to reject a CIRCO prediction file, as sentences that name the query; none if the file is right.

    Args:
        predictions: `{"0": [50 ids of images, best first], ...}`, the keys exactly 0 to n-1. The query's own reference is
            allowed: CIRCO does not remove it.
        queries: the items of `val.json` or `test.json`, of which `id` is looked at.
        gallery_ids: ids of every image of COCO 2017 unlabeled; `None` leaves out the check of unknown ids.
    """
    if not isinstance(predictions, dict):
        return [f"the file holds {shorten(predictions)} instead of a JSON object of queries"]
    gallery = None if gallery_ids is None else frozenset(gallery_ids)
    expected = [str(query["id"]) for query in queries]
    problems = query_problems(predictions, expected, f"the ids must be exactly 0 to {len(expected) - 1}")
    for query in expected:
        if query in predictions:
            found = _ranking_problems(predictions[query], gallery)
            problems += [f"query {query}: {problem}" for problem in found]
    return problems


def score_circo(predictions: dict, queries: Sequence[dict]) -> dict[str, dict]:
    """The figures of CIRCO's evaluator (arXiv 2303.15247, section 4).

    mAP@{5, 10, 25, 50} counts every image of `gt_img_ids`, Recall@{5, 10, 25, 50} only `target_img_id`, and mAP@10 of a
    semantic aspect is over the queries that carry it.

    Args:
        predictions: a file that [`validate_circo`] has nothing against.
        queries: the items of `val.json`.

    Returns:
        `{"mAP@5": {"percent": float, "queries": int}, ..., "R@5": ..., "mAP@10 <aspect>": ...}`.
    """
    ids = [predictions[str(query["id"])] for query in queries]
    numbers = numbered(chain(*ids, *((query["target_img_id"], *query["gt_img_ids"]) for query in queries)))
    rankings = torch.tensor([[numbers[image] for image in ranking] for ranking in ids])
    answers = [[numbers[image] for image in query["gt_img_ids"]] for query in queries]
    targets = [numbers[query["target_img_id"]] for query in queries]
    cuts = _PROTOCOL.mean_average_precision
    shares = {f"mAP@{k}": (mean_average_precision_at_k(rankings, answers, k), len(queries)) for k in cuts}
    shares |= {f"R@{k}": (recall_at_k(rankings, targets, k), len(queries)) for k in _PROTOCOL.recall}
    for aspect in sorted({aspect for query in queries for aspect in query["semantic_aspects"]}):
        rows = [row for row, query in enumerate(queries) if aspect in query["semantic_aspects"]]
        k = _PROTOCOL.aspect_precision
        value = mean_average_precision_at_k(rankings[rows], [answers[row] for row in rows], k)
        shares[f"mAP@{k} {aspect}"] = (value, len(rows))
    return {name: {"percent": 100 * share, "queries": count} for name, (share, count) in shares.items()}


def _ranking_problems(ranking: object, gallery: frozenset[int] | None) -> list[str]:
    problems = ranking_problems(ranking, LENGTH, int, "integer ids")
    ids = dict.fromkeys(entries_of(ranking, int))
    if gallery is not None and (unknown := [image for image in ids if image not in gallery]):
        problems.append(f"lists {named(unknown)}, not in the gallery")
    return problems
