"""The metrics of composed retrieval for `evaluate`: a thin shell around `m2c.evaluation.metrics`."""

import datasets
import evaluate
import torch

from m2c.evaluation.metrics import mean_average_precision_at_k, recall_at_k


DESCRIPTION = """
Recall@k and mAP@k of composed image retrieval, in percent. Recall looks for one target; mAP@k, as CIRCO defines it, counts
every correct answer: AP@k is the sum, over ranks i <= k that hold one, of the precision at i, divided by min(answers, k).
"""
INPUTS = """
Args:
    predictions: for each query the ids of gallery images, best first; all equally many, none twice.
    references: for each query the ids of its correct answers, the target first.
    recall: the k of R@k. (default: 1, 5, 10, 50, as far as the predictions reach)
    precision: the k of mAP@k. (default: 5, 10, 25, 50, likewise)
    subsets: for each query the ids that subset recall ranks, all of them among its predictions.
    subset_recall: the k of subset R@k. (default: 1, 2, 3)
    aspects: for each query its semantic aspects; mAP@10 is also given for each, over the queries that carry it.
    categories: for each query its category; figures are given for each, and their mean over categories under the plain name.

Returns:
    {"R@1": ..., "mAP@5": ..., "subset R@1": ..., "mAP@10 addition": ..., "dress R@10": ..., "queries": ...}

Example:
    >>> metric = evaluate.load("m2c/evaluation/composed_retrieval")
    >>> metric.compute(predictions=[["a", "b"], ["c", "a"]], references=[["b"], ["c", "a"]], recall=[1, 2], precision=[2])
    {'R@1': 50.0, 'R@2': 100.0, 'mAP@2': 75.0, 'queries': 2}
"""
CITATION = """
@inproceedings{circo2023, title={Zero-Shot Composed Image Retrieval with Textual Inversion}, note={arXiv 2303.15247}}
"""


class ComposedRetrieval(evaluate.Metric):
    def _info(self) -> evaluate.MetricInfo:
        ids = datasets.Sequence(datasets.Value("string"))
        return evaluate.MetricInfo(
            description=DESCRIPTION,
            citation=CITATION,
            inputs_description=INPUTS,
            features=datasets.Features({"predictions": ids, "references": ids}),
        )

    def _compute(
        self,
        predictions,
        references,
        recall=(1, 5, 10, 50),
        precision=(5, 10, 25, 50),
        subsets=None,
        subset_recall=(1, 2, 3),
        aspects=None,
        categories=None,
    ) -> dict[str, float]:
        """Raises `ValueError` if there is no query, one has no answer, or lists differ in length or hold an image twice."""
        _check(predictions, references)
        everything = [*predictions, *references, *(subsets or [])]
        number = {name: position for position, name in enumerate({name for row in everything for name in row})}

        def figures_of(rows: list[int]) -> dict[str, float]:
            rankings = torch.tensor([[number[name] for name in predictions[row]] for row in rows])
            answers = [[number[name] for name in references[row]] for row in rows]
            targets, depth = [row[0] for row in answers], rankings.shape[1]
            figures = {f"R@{k}": recall_at_k(rankings, targets, k) for k in recall if k <= depth}
            figures |= {f"mAP@{k}": mean_average_precision_at_k(rankings, answers, k) for k in precision if k <= depth}
            if subsets:
                within = [[number[name] for name in predictions[row] if name in subsets[row]] for row in rows]
                width = max(map(len, within))
                within = torch.tensor([row + [-1] * (width - len(row)) for row in within])
                figures |= {f"subset R@{k}": recall_at_k(within, targets, k) for k in subset_recall}
            for aspect in sorted({aspect for row in rows for aspect in aspects[row]}) if aspects else ():
                carry = [index for index, row in enumerate(rows) if aspect in aspects[row]]
                value = mean_average_precision_at_k(rankings[carry], [answers[index] for index in carry], 10)
                figures[f"mAP@10 {aspect}"] = value
            return {name: 100 * value for name, value in figures.items()}

        if not categories:
            return figures_of(list(range(len(predictions)))) | {"queries": len(predictions)}
        parts = {
            category: figures_of([row for row, other in enumerate(categories) if other == category])
            for category in sorted(set(categories))
        }
        shared = set.intersection(*(set(part) for part in parts.values()))
        mean = {name: sum(part[name] for part in parts.values()) / len(parts) for name in shared}
        each = {f"{category} {name}": value for category, part in parts.items() for name, value in part.items()}
        return mean | each | {"queries": len(predictions)}


def _check(predictions: list[list[str]], references: list[list[str]]) -> None:
    if not predictions:
        raise ValueError("there are no predictions to score")
    depth = len(predictions[0])
    for number, (ranking, answers) in enumerate(zip(predictions, references, strict=True)):
        if len(ranking) != depth or len(set(ranking)) != depth or not answers:
            raise ValueError(
                f"query {number} should list {depth} different images, as the first query does, and have an answer; it lists "
                f"{len(ranking)}, {len(set(ranking))} of them different, and has {len(answers)} answers"
            )
