"""The check before a benchmark is run: are all images there?"""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pyarrow.compute as pc
from datasets import Dataset

from .files import check_images
from .form import QUERY_FEATURES, Benchmark


NAMES_SHOWN = 3


def check_benchmark(benchmark: Benchmark, allow_missing: bool, report: str | Path) -> Benchmark:
    """Looks at every image file of the gallery, and stops, or leaves out what cannot be measured.

    Args:
        benchmark: its gallery's images may be files or carry their bytes; the latter are taken to be whole.
        allow_missing: leave out the images that are missing or unreadable, and the queries whose reference, target or every
            answer is among them; they also vanish from subsets and answers.
        report: file that gets the list, one `path<tab>reason` per line. Without problems there is none, nor an older one.

    Returns:
        The benchmark itself if nothing is missing; otherwise one without those images, whose `left_out` counts `gallery images`
        and `queries` that are gone, and `answers` and `subset members` that the other queries lost; only kinds that occur.

    Raises:
        ValueError: without `allow_missing`, if an image is missing or unreadable; with it, if no query is left.
    """
    report, paths = Path(report), _paths(benchmark.gallery)
    problems = check_images([path for path in paths if path is not None])
    if not problems:
        report.unlink(missing_ok=True)
        return benchmark
    report.parent.mkdir(parents=True, exist_ok=True)
    report.write_text("".join(f"{path}\t{reason}\n" for path, reason in problems.items()), encoding="utf-8")
    summary = _summary(benchmark, problems, report)
    if not allow_missing:
        raise ValueError(f"{summary}. Complete the files, or go on without them with --allow_missing")
    gallery = benchmark.gallery.select([position for position, path in enumerate(paths) if path not in problems])
    queries, lost = _without(benchmark, set(gallery["id"]))
    if not queries:
        raise ValueError(f"{summary}. No query is left to measure")
    # The sum of counters drops the kinds that do not occur.
    left_out = dict(Counter(benchmark.left_out) + lost)
    queries = Dataset.from_list(queries, features=QUERY_FEATURES)
    return replace(benchmark, gallery=gallery, queries=queries, left_out=left_out)


def _paths(gallery: Dataset) -> list[str | None]:
    """The file of each image, `None` where the row carries the bytes. The bytes are not copied."""
    paths = []
    for images in gallery.select_columns("image").with_format("arrow")[:].column("image").chunks:
        has_bytes = pc.is_valid(pc.struct_field(images, "bytes"))
        paths += pc.if_else(has_bytes, None, pc.struct_field(images, "path")).to_pylist()
    return paths


def _summary(benchmark: Benchmark, problems: dict[str, str], report: Path) -> str:
    missing = sum(reason == "missing" for reason in problems.values())
    name = " ".join(filter(None, (benchmark.name, benchmark.category, benchmark.split)))
    first = "; ".join(f"{path}: {reason}" for path, reason in list(problems.items())[:NAMES_SHOWN])
    more = "; ..." if len(problems) > NAMES_SHOWN else ""
    absent = sorted({str(folder) for folder in {Path(path).parent for path in problems} if not folder.is_dir()})
    folders = f". There is no folder {', nor '.join(absent[:NAMES_SHOWN])}" if absent else ""
    return (
        f"{name} has {len(benchmark.queries):,} queries and {len(benchmark.gallery):,} gallery images; of their files "
        f"{missing:,} are missing and {len(problems) - missing:,} unreadable ({first}{more}). The whole list is in {report}"
        f"{folders}"
    )


def _without(benchmark: Benchmark, there: set[str]) -> tuple[list[dict], Counter]:
    """The queries that can be measured with only the images `there`, and how much of each kind is lost."""
    queries, lost = [], Counter({"gallery images": len(benchmark.gallery) - len(there)})
    for query in benchmark.queries:
        answers = [name for name in query["answer_ids"] if name in there]
        subset = [name for name in query["subset_ids"] if name in there]
        has_target = query["target_id"] is None or query["target_id"] in there
        if query["reference_id"] not in there or not has_target or (query["answer_ids"] and not answers):
            lost["queries"] += 1
            continue
        lost["answers"] += len(query["answer_ids"]) - len(answers)
        lost["subset members"] += len(query["subset_ids"]) - len(subset)
        queries.append({**query, "answer_ids": answers, "subset_ids": subset})
    return queries, lost
