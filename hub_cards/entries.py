"""Figures in the two forms that the Hub reads: `.eval_results/*.yaml`, and `model-index` in the card."""

import json
from urllib.parse import quote

from huggingface_hub import EvalResult, EvalResultEntry

from .evaluations import RECORDS, Evaluation


TASK = {"task_type": "composed-image-retrieval", "task_name": "Composed image retrieval"}


def result_entries(evaluation: Evaluation, repo_id: str) -> list[EvalResultEntry]:
    """The figures as entries of `.eval_results/`, in percent, each with the counts and the prompt that it was taken with.

    Args:
        evaluation: what was measured.
        repo_id: where the record will be published, for a link to it.
    """
    record = evaluation.record
    source = f"https://huggingface.co/{repo_id}/blob/main/{RECORDS}/{quote(evaluation.name)}.json"
    return [
        EvalResultEntry(
            dataset_id=evaluation.dataset,
            task_id="-".join(filter(None, (_row(evaluation, row), record["split"], name.replace(" ", "_")))),
            value=value,
            date=record.get("date"),
            source_url=source,
            source_name="record of m2c evaluate",
            notes=_notes(evaluation, row, name),
        )
        for row, name, value in evaluation.measured()
    ]


def model_index(evaluations: list[Evaluation]) -> list[EvalResult]:
    """The figures for the `model-index` of a card, in percent."""
    return [
        EvalResult(
            **TASK,
            dataset_type=evaluation.dataset,
            dataset_name=evaluation.title,
            dataset_config=_row(evaluation, row),
            dataset_split=evaluation.record["split"],
            metric_type=name.replace("R@", "recall_at_").replace("mAP@", "map_at_").replace(" ", "_"),
            metric_name=name,
            metric_value=value,
        )
        for evaluation in evaluations
        for row, name, value in evaluation.measured()
    ]


def _row(evaluation: Evaluation, row: str | None) -> str | None:
    """The category, `"mean"` of all of them, or nothing where a benchmark has none."""
    return None if row == evaluation.record["benchmark"] else row or "mean"


def _notes(evaluation: Evaluation, row: str | None, name: str) -> str:
    record, part = evaluation.record, evaluation.rows[row]
    notes = [f"{name} in percent"]
    if row is None:
        notes.append(f"mean of {', '.join(record['parts'])}")
    else:
        notes.append(f"{part.get('queries', 'missing')} queries, gallery of {part.get('gallery', 'missing')}")
        notes += [f"{count} {kind} left out" for kind, count in (part.get("left_out") or {}).items()]
    notes.append(f"reference {'left out of the ranking' if record['protocol'].get('excludes_reference') else 'ranked too'}")
    notes.append(f"prompt {json.dumps(record['query'].get('prompt'), ensure_ascii=False)}")
    return "; ".join(notes)
