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

Returns:
    {"R@1": ..., "mAP@5": ..., "queries": ...}

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

    def _compute(self, predictions, references, recall=(1, 5, 10, 50), precision=(5, 10, 25, 50)) -> dict[str, float]:
        """Raises `ValueError` if a query has no answer, or lists of different length or with an image twice."""
        depth = len(predictions[0])
        for number, (ranking, answers) in enumerate(zip(predictions, references, strict=True)):
            if len(ranking) != depth or len(set(ranking)) != depth or not answers:
                raise ValueError(
                    f"query {number} should list {depth} different images, as the first query does, and have an answer; it "
                    f"lists {len(ranking)}, {len(set(ranking))} of them different, and has {len(answers)} answers"
                )
        number = {name: position for position, name in enumerate({name for row in [*predictions, *references] for name in row})}
        rankings = torch.tensor([[number[name] for name in row] for row in predictions])
        answers = [[number[name] for name in row] for row in references]
        targets = [row[0] for row in answers]
        figures = {f"R@{k}": recall_at_k(rankings, targets, k) for k in recall if k <= depth}
        figures |= {f"mAP@{k}": mean_average_precision_at_k(rankings, answers, k) for k in precision if k <= depth}
        return {name: 100 * value for name, value in figures.items()} | {"queries": len(answers)}
