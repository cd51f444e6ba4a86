"""Puts what `m2c evaluate` measured beside the model that was measured."""

import json
from pathlib import Path

import torch
import yaml
from huggingface_hub import eval_result_entries_to_yaml

from m2c.checkpoints import load_model
from m2c.evaluation.evaluate import DTYPES
from m2c.evaluation.record import describe_model

from .entries import result_entries
from .evaluations import ENTRIES, RECORDS, Evaluation, check_record
from .publishable import publishable


def write_results(
    folder: str | Path, records: list[dict], repo_id: str | None = None, datasets: dict[str, str] | None = None
) -> list[Path]:
    """Writes records and their entries for the Hub: `evaluation/*.json`, `.eval_results/*.yaml`. Cards take figures from there.

    A record of the same benchmark and split that is there already is replaced. A split that keeps its targets secret has no
    figures, and gets no entries.

    Args:
        folder: of the model; it is loaded, to see that it is the one that was measured.
        records: from [`read_evaluation`], or those of [`m2c.evaluation.evaluate.Evaluation`].
        repo_id: where the folder will be published, for links from the entries to the records.
        datasets: repositories of benchmarks on the Hub, by the benchmark's name. The Hub shows an entry on a leaderboard only
            where its data set is registered as a benchmark; by default it gives the benchmark's own name.

    Returns:
        The files.

    Raises:
        ValueError: if a record is not one of `m2c evaluate`, of plain CLIP, or of another model than that in the folder; or two
            are of the same benchmark and split.
    """
    folder, evaluations = Path(folder), {}
    for record in records:
        check_record(record, "the record")
        evaluation = Evaluation(publishable(record), (datasets or {}).get(record["benchmark"], record["benchmark"]))
        if evaluation.name in evaluations:
            raise ValueError(f"there are two records of {evaluation.name}; name the one that is to be published")
        _check_query(evaluation)
        evaluations[evaluation.name] = evaluation
    _check_model(folder, list(evaluations.values()))
    return [path for evaluation in evaluations.values() for path in _write(folder, evaluation, repo_id)]


def _check_query(evaluation: Evaluation) -> None:
    kind = evaluation.record["query"].get("kind")
    if kind != "composed":
        raise ValueError(f"the record of {evaluation.name} is of plain CLIP (queries of kind {kind!r}), not of the retriever")


def _check_model(folder: Path, evaluations: list[Evaluation]) -> None:
    """Raises `ValueError` if something was measured on other weights or adapters than those in the folder."""
    found = {}
    for evaluation in evaluations:
        measured = evaluation.record["model"]
        dtype = measured.get("dtype")
        if dtype not in DTYPES:
            raise ValueError(f"the record of {evaluation.name} has a dtype of {dtype!r}, which is none of {', '.join(DTYPES)}")
        if dtype not in found:
            found[dtype] = describe_model(str(folder), load_model(str(folder)).eval().to(getattr(torch, dtype)))
        if any(measured.get(key) != found[dtype][key] for key in ("sha256", "adapters")):
            raise ValueError(
                f"the record of {evaluation.name} is of another model ({measured.get('name')}), or of this one before it was "
                f"changed; measure this one with m2c evaluate --model {folder}"
            )


def _write(folder: Path, evaluation: Evaluation, repo_id: str | None) -> list[Path]:
    record, table = folder / RECORDS / f"{evaluation.name}.json", folder / ENTRIES / f"{evaluation.name}.yaml"
    contents = {record: json.dumps(evaluation.record, ensure_ascii=False, indent=2) + "\n"}
    table.unlink(missing_ok=True)
    entries = eval_result_entries_to_yaml(result_entries(evaluation, repo_id))
    if entries:
        contents[table] = yaml.safe_dump(entries, sort_keys=False, allow_unicode=True)
    for path, content in contents.items():
        path.parent.mkdir(exist_ok=True)
        path.write_text(content, encoding="utf-8")
    return list(contents)
