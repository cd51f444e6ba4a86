"""What an evaluation leaves: a table, its record, and the files for the benchmarks' servers."""

import json
from pathlib import Path

from m2c.data.benchmarks import Benchmark

from .evaluate import Evaluation
from .protocols import Rankings
from .submissions import write_circo_submission, write_cirr_submission


def table(record: dict) -> str:
    """The figures of each part and their mean as Markdown, with what they were taken over."""
    lines = _figures(record) if record["figures"] else ["The targets of this split are secret, so there are no figures."]
    for title, part in record["parts"].items():
        if part["left_out"]:
            counts = ", ".join(f"{count} {kind}" for kind, count in part["left_out"].items())
            lines += ["", f"{title}: left out, because files are missing or unreadable: {counts}."]
    if tuned := record["query"].get("complementary", {}).get("tuned_on_these_queries"):
        lines += ["", _tuned(tuned)]
    return "\n".join(lines)


def _tuned(tuned: dict) -> str:
    weights = tuned["weights"]
    numbers = ",".join(f"{weights[name]:g}" for name in ("alpha", "beta", "gamma"))
    options = f"--weights {numbers} --caption_feature {weights['caption_feature']}"
    return f"Best on these queries, to be used on others: {options} ({tuned['figure']} {tuned['value']:.2f})."


def _figures(record: dict) -> list[str]:
    names = [name for name in record["figures"] if " " not in name or name.startswith("subset")]
    lines = [f"| | queries | gallery | {' | '.join(names)} |", "|---" * (3 + len(names)) + "|"]
    for title, part in record["parts"].items():
        figures = " | ".join(f"{part['figures'][name]:.2f}" for name in names)
        lines.append(f"| {title} | {part['queries']} | {part['gallery']} | {figures} |")
    if len(record["parts"]) > 1:
        mean = " | ".join(f"{record['figures'][name]:.2f}" for name in names)
        lines.append(f"| mean | | | {mean} |")
    aspects = [name for name in record["figures"] if name not in names]
    if aspects:
        lines += ["", "| semantic aspect | mAP |", "|---|---|"]
        lines += [f"| {name} | {record['figures'][name]:.2f} |" for name in aspects]
    return lines


def write_evaluation(evaluation: Evaluation, folder: Path) -> list[str]:
    """Writes `record.json`, `table.md`, and for CIRR and CIRCO the files that their servers take.

    Returns:
        Lines about files for a server that could not be written, and why.
    """
    (folder / "record.json").write_text(json.dumps(evaluation.record, indent=2) + "\n", encoding="utf-8")
    (folder / "table.md").write_text(table(evaluation.record) + "\n", encoding="utf-8")
    write = {"cirr": _write_cirr, "circo": _write_circo}.get(evaluation.record["benchmark"])
    if write is None:
        return []
    ((benchmark, rankings),) = evaluation.parts
    if benchmark.left_out:
        return ["No file for the server was written: it would lack what is left out."]
    try:
        write(benchmark, rankings, folder)
    except ValueError as error:
        return [str(error)]
    return []


def _write_cirr(benchmark: Benchmark, rankings: Rankings, folder: Path) -> None:
    names = benchmark.gallery["id"][:]
    queries = [
        {
            "pairid": row["id"],
            "reference": row["reference_id"],
            "img_set": {"members": [*row["subset_ids"], row["reference_id"]]},
        }
        for row in benchmark.queries
    ]
    for metric, ranked in (("recall", rankings.gallery[:, :50]), ("recall_subset", rankings.subsets[:, :3])):
        answers = {query["pairid"]: [names[position] for position in row] for query, row in zip(queries, ranked.tolist())}
        write_cirr_submission(folder / f"cirr-{benchmark.split}-{metric}.json", metric, answers, queries, names)


def _write_circo(benchmark: Benchmark, rankings: Rankings, folder: Path) -> None:
    ids = [int(name) for name in benchmark.gallery["id"]]
    queries = [{"id": int(name)} for name in benchmark.queries["id"]]
    rows = zip(queries, rankings.gallery[:, :50].tolist())
    answers = {str(query["id"]): [ids[position] for position in row] for query, row in rows}
    write_circo_submission(folder / f"circo-{benchmark.split}.json", answers, queries, ids)
