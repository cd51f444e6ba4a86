"""Puts what `m2c evaluate` measured beside the model that was measured."""

import json
from pathlib import Path

import torch
import yaml
from huggingface_hub import eval_result_entries_to_yaml

from m2c.checkpoints import load_model
from m2c.evaluation.evaluate import DTYPES
from m2c.evaluation.record import describe_model
from m2c.whole_files import write_whole

from .entries import result_entries
from .evaluations import DATASET, RECORDS, Evaluation, check_record, read_evaluations
from .licences import is_on_hub
from .publishable import publishable


ENTRIES = ".eval_results"


def write_results(folder: str | Path, records: list[dict], datasets: dict[str, str] | None = None) -> list[Path]:
    """Adds records to those in `evaluation/*.json`, which cards take figures from.

    A record of the same benchmark and split that is there already is replaced.

    Args:
        folder: of the model. Where there are records, it is loaded, to see that it is the one that was measured.
        records: from [`read_evaluation`], or those of [`m2c.evaluation.evaluate.Evaluation`].
        datasets: repositories of benchmarks on the Hub, by the benchmark's name. The Hub shows figures on a leaderboard only
            where their data set is registered as a benchmark; by default they are given the benchmark's own name.

    Returns:
        The files of all records in the folder.

    Raises:
        ValueError: if a record, of those in the folder too, is not one of `m2c evaluate`, of plain CLIP, or of another model
            than that in the folder; or two are of the same benchmark and split, or none of a benchmark in `datasets`.
    """
    folder = Path(folder)
    evaluations = {evaluation.name: evaluation for evaluation in read_evaluations(folder)} | _by_name(records)
    evaluations = _with_datasets(evaluations, datasets or {})
    _check_model(folder, list(evaluations.values()))
    return [_write(folder / RECORDS / f"{name}.json", _json(evaluation)) for name, evaluation in evaluations.items()]


def write_entries(folder: str | Path, repo_id: str) -> list[Path]:
    """Writes `.eval_results/*.yaml`, from which the Hub takes figures, for the records in a folder; and returns these files.

    A split that keeps its targets secret has no figures, and gets no entries.

    Args:
        folder: of the model.
        repo_id: where it will be published.

    Raises:
        ValueError: if a record is damaged.
    """
    entries = {evaluation.name: result_entries(evaluation, repo_id) for evaluation in read_evaluations(folder)}
    return [
        _write(Path(folder, ENTRIES, f"{name}.yaml"), _yaml(eval_result_entries_to_yaml(figures)))
        for name, figures in entries.items()
        if figures
    ]


def _by_name(records: list[dict]) -> dict[str, Evaluation]:
    evaluations = {}
    for record in records:
        check_record(record, "the record")
        evaluation = Evaluation(publishable(record))
        if evaluation.name in evaluations:
            raise ValueError(f"there are two records of {evaluation.name}; name the one that is to be published")
        evaluations[evaluation.name] = evaluation
    return evaluations


def _with_datasets(evaluations: dict[str, Evaluation], datasets: dict[str, str]) -> dict[str, Evaluation]:
    if unknown := sorted(datasets.keys() - {evaluation.record["benchmark"] for evaluation in evaluations.values()}):
        raise ValueError(f"a data set is named for {unknown[0]}, of which there is no record")
    if wrong := [dataset for dataset in datasets.values() if not is_on_hub(dataset)]:
        raise ValueError(f"the data set of a benchmark is a repository of the Hub, user/name, and not {wrong[0]!r}")
    named = {name: datasets.get(evaluation.record["benchmark"]) for name, evaluation in evaluations.items()}
    return evaluations | {
        name: Evaluation({**evaluations[name].record, DATASET: dataset}) for name, dataset in named.items() if dataset
    }


def _check_model(folder: Path, evaluations: list[Evaluation]) -> None:
    """Raises `ValueError` if something was measured on plain CLIP, with other models, or on weights or adapters other
    than those in the folder."""
    found = {}
    for evaluation in evaluations:
        kind, measured = evaluation.record["query"].get("kind"), evaluation.record["model"]
        if kind != "composed":
            raise ValueError(f"the record of {evaluation.name} is of plain CLIP (queries of kind {kind!r}), not of a retriever")
        if "complementary" in evaluation.record["query"]:
            raise ValueError(
                f"the record of {evaluation.name} is of complementary retrieval: its figures are also those of a captioner and "
                "a language model, not this model's own; measure it without --method cvsi"
            )
        dtype = measured.get("dtype")
        if dtype not in DTYPES:
            raise ValueError(f"the record of {evaluation.name} has a dtype of {dtype!r}, which is none of {', '.join(DTYPES)}")
        if dtype not in found:
            found[dtype] = describe_model(str(folder), load_model(str(folder)).eval().to(getattr(torch, dtype)))
        if any(measured.get(key) != found[dtype][key] for key in ("sha256", "adapters")):
            raise ValueError(
                f"the record of {evaluation.name} is of another model ({measured.get('name')}), or of this one before it was "
                "changed; measure this one with m2c evaluate, or leave the record out"
            )


def _json(evaluation: Evaluation) -> str:
    return json.dumps(evaluation.record, ensure_ascii=False, indent=2) + "\n"


def _yaml(content: list[dict]) -> str:
    return yaml.safe_dump(content, sort_keys=False, allow_unicode=True)


def _write(path: Path, content: str) -> Path:
    path.parent.mkdir(exist_ok=True)
    write_whole(path, content)
    return path
