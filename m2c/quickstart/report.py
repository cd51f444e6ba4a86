"""`report.json` and `report.md`."""

import json
from pathlib import Path

from m2c.evaluation.scenes_benchmark import METRICS


def table(rows: dict[str, dict[str, float]]) -> str:
    """The figures as a Markdown table."""
    lines = [f"| method | {' | '.join(METRICS)} |", "|---" * (1 + len(METRICS)) + "|"]
    for name, figures in rows.items():
        lines.append(f"| {name} | {' | '.join(f'{figures[metric]:.1f}' for metric in METRICS)} |")
    return "\n".join(lines)


def complementary_table(models: dict[str, dict[str, dict[str, float]]]) -> str:
    """R@1 of complementary retrieval as a Markdown table: a row for each selection of parts, a column for each model."""
    lines = [f"| CVSI, R@1 | {' | '.join(models)} |", "|---" * (1 + len(models)) + "|"]
    for name in next(iter(models.values())):
        lines.append(f"| {name} | {' | '.join(format(rows[name]['R@1'], '.1f') for rows in models.values())} |")
    return "\n".join(lines)


def _complementary(models: dict) -> str:
    if not models:
        return ""
    return f"""
{complementary_table(models)}

*f1*: captions of the edited image, by a captioner and a language model. *f2*: the composed query, with the objects that the
language model expects. *f3*: the reference image, which has a fifth of a pair; of all three it has nothing, as the weights are
those for CIRR. *Captioned gallery*: captions of the gallery's images count too.
"""


def write_report(folder: Path, report: dict) -> None:
    settings = report["settings"]
    text = f"""# Composed retrieval on scenes

{table(report["rows"])}

Percent, over {settings["queries"]} queries and a gallery of {report["gallery"]} images: for every query its reference, its
target and four other edits of the reference. The reference is left out of its own ranking. *R@k*: the target is among the
first k. *subset R@1*: the target comes before the four other edits of its reference (chance: 20). *mAP@10* counts every image
that shows the edited scene. *Ceiling*: CLIP's text search with a complete description of the target, which no composed query
has.
{_complementary(report["complementary"])}
Measured in {report["seconds"]} s by `{report["command"]}`: stage 1 on {settings["pairs"]} image-caption pairs
in {settings["stage1_steps"]} steps, stage 2 on {settings["triplets"]} triplets in {settings["stage2_steps"]} steps.

![queries and answers](retrieval.png)
"""
    (folder / "report.md").write_text(text, encoding="utf-8")
    (folder / "report.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
