"""CIRR (arXiv 2108.04024): its two prediction files, one for Recall and one for Recall_subset."""

from collections.abc import Collection, Sequence
from itertools import chain
from reprlib import repr as shorten

import torch

from m2c.evaluation.metrics import recall_at_k
from m2c.evaluation.protocols import PROTOCOLS

from .problems import entries_of, named, numbered, query_problems, ranking_problems


VERSION = "rc2"
LENGTHS = {"recall": 50, "recall_subset": 3}
_FIGURES = {"recall": ("R@", PROTOCOLS["cirr"].recall), "recall_subset": ("subset R@", PROTOCOLS["cirr"].subset_recall)}


def validate_cirr(predictions: dict, queries: Sequence[dict], gallery_names: Collection[str] | None = None) -> list[str]:
    """Every reason to reject a CIRR prediction file, as sentences that name the query; none if the file is right.

    Args:
        predictions: `{"version": "rc2", "metric": "recall" or "recall_subset", "<pairid>": [names, best first], ...}` with 50
            names for Recall and 3 for Recall_subset, none of them the query's own reference.
        queries: the items of `cap.rc2.<split>.json`: `pairid`, `reference` and `img_set` are looked at.
        gallery_names: names of every image of the split; `None` leaves out the check of unknown names.
    """
    if not isinstance(predictions, dict):
        return [f"the file holds {shorten(predictions)} instead of a JSON object of queries"]
    gallery = None if gallery_names is None else frozenset(gallery_names)
    rankings = {query: ranking for query, ranking in predictions.items() if query not in ("version", "metric")}
    problems = _header_problems(predictions)
    expected = [str(query["pairid"]) for query in queries]
    problems += query_problems(rankings, expected, "the annotations have no such pairid")
    for name, query in zip(expected, queries, strict=True):
        if name in rankings:
            found = _ranking_problems(rankings[name], query, predictions.get("metric"), gallery)
            problems += [f"query {name}: {problem}" for problem in found]
    return problems


def score_cirr(predictions: dict, queries: Sequence[dict]) -> dict[str, dict]:
    """Recall@{1, 5, 10, 50}, or Recall_subset@{1, 2, 3}, against `target_hard`, as the file's `metric` says.

    Args:
        predictions: a file that [`validate_cirr`] has nothing against.
        queries: the items of the annotations, with their `target_hard`.

    Returns:
        `{"R@1": {"percent": float, "queries": int}, ...}`, or `"subset R@1"` and so on.
    """
    prefix, cuts = _FIGURES[predictions["metric"]]
    names = [predictions[str(query["pairid"])] for query in queries]
    answers = [query["target_hard"] for query in queries]
    numbers = numbered(chain(answers, *names))
    rankings = torch.tensor([[numbers[name] for name in ranking] for ranking in names])
    targets = [numbers[name] for name in answers]
    return {f"{prefix}{k}": {"percent": 100 * recall_at_k(rankings, targets, k), "queries": len(queries)} for k in cuts}


def _header_problems(predictions: dict) -> list[str]:
    problems = []
    for key, allowed in (("version", (VERSION,)), ("metric", tuple(LENGTHS))):
        wanted = " or ".join(f'"{value}"' for value in allowed)
        if key not in predictions:
            problems.append(f'the entry "{key}" is missing; it must be {wanted}')
        elif predictions[key] not in allowed:
            problems.append(f'the entry "{key}" is {shorten(predictions[key])}; it must be {wanted}')
    return problems


def _ranking_problems(ranking: object, query: dict, metric: object, gallery: frozenset[str] | None) -> list[str]:
    # The metric comes from the file and may be anything, even something that is no key of a dictionary.
    length = LENGTHS[metric] if metric in tuple(LENGTHS) else None
    problems = ranking_problems(ranking, length, str, "names")
    names = dict.fromkeys(entries_of(ranking, str))
    if files := [name for name in names if _is_file(name)]:
        problems.append(f'lists {named(files)}; a name stands without folder and without ".png"')
    if query["reference"] in names:
        problems.append(f"lists its own reference {shorten(query['reference'])}")
    names = [name for name in names if not _is_file(name)]
    if gallery is not None and (unknown := [name for name in names if name not in gallery]):
        problems.append(f"lists {named(unknown)}, not in the gallery")
    members = query["img_set"]["members"]
    if metric == "recall_subset" and (outside := [name for name in names if name not in members]):
        problems.append(f"lists {named(outside)}, not in the query's img_set")
    return problems


def _is_file(name: str) -> bool:
    return "/" in name or "\\" in name or name.lower().endswith(".png")
