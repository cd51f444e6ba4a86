"""The check before a benchmark is run: are all images there?"""

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from datasets import Dataset
from tqdm.auto import tqdm

from .files import SHOW_PROGRESS_FROM, check_bytes, check_images
from .form import QUERY_FEATURES, Benchmark


NAMES_SHOWN = 3
# Of rows that carry their bytes, so many are in memory together.
ROWS_AT_ONCE = 100
NO_IMAGE = "no image"


def check_benchmark(
    benchmark: Benchmark, allow_missing: bool, report: str | Path, say: Callable[[str], None] | None = None
) -> Benchmark:
    """Looks at every image file of the gallery, and stops, or leaves out what cannot be measured.

    Args:
        benchmark: its gallery's images may be files or carry their bytes; both are looked at.
        allow_missing: leave out the images that are missing or unreadable, and the queries whose reference, target or every
            answer is among them; they also vanish from subsets and answers.
        report: file that gets the list, one `path<tab>reason` per line; an image that is no file goes by `image '<id>'`.
            Without problems nothing is written.
        say: gets a line on what was found, unless the check stops.

    Returns:
        The benchmark itself if nothing is missing; otherwise one without those images, whose `left_out` counts `gallery images`
        and `queries` that are gone, and `answers` and `subset members` that the other queries lost; only kinds that occur.

    Raises:
        ValueError: without `allow_missing`, if an image is missing or unreadable; with it, if no query is left, or the list of
            what is missing cannot be written. The message has the counts and the remedy.
    """
    say = say or (lambda _: None)
    report, (names, problems) = Path(report), _look_at(benchmark.gallery)
    if not problems:
        say(f"{_title(benchmark)}: all {len(set(names)):,} image files are there")
        return benchmark
    remedy = "Complete the files" if allow_missing else "Complete the files, or leave them out: m2c evaluate --allow_missing"
    try:
        report.parent.mkdir(parents=True, exist_ok=True)
        report.write_text("".join(f"{name}\t{reason}\n" for name, reason in problems.items()), encoding="utf-8")
    except OSError as error:
        unwritten = f"The list of them could not be written to {report} ({error.strerror}); run where files can be written"
        raise ValueError(f"{_summary(benchmark, problems, unwritten)}. {remedy}") from error
    summary = _summary(benchmark, problems, f"The whole list is in {report}")
    if not allow_missing:
        raise ValueError(f"{summary}. {remedy}")
    gallery = benchmark.gallery.select([position for position, name in enumerate(names) if name not in problems])
    queries, lost = _without(benchmark, set(gallery["id"]))
    if not queries:
        raise ValueError(f"{summary}. No query is left to measure. {remedy}")
    say(f"{summary}. Going on with {len(queries):,} queries and {len(gallery):,} gallery images")
    # The sum of counters drops the kinds that do not occur.
    left_out = dict(Counter(benchmark.left_out) + lost)
    queries = Dataset.from_list(queries, features=QUERY_FEATURES)
    return replace(benchmark, gallery=gallery, queries=queries, left_out=left_out)


def _look_at(gallery: Dataset) -> tuple[list[str], dict[str, str]]:
    """The name of each row's image, its file or else its id in words; and by name, in this order, what is wrong."""
    names, paths, reasons = [], [], {}
    batches = gallery.select_columns(["id", "image"]).with_format("arrow").iter(ROWS_AT_ONCE)
    with tqdm(total=len(gallery), desc="gallery", disable=len(gallery) < SHOW_PROGRESS_FROM) as bar:
        for rows in batches:
            for row in rows.to_pylist():
                image = row["image"] or {"bytes": None, "path": None}
                if image["bytes"] is None and image["path"] is not None:
                    names.append(image["path"])
                    paths.append(image["path"])
                else:
                    names.append(f"image {row['id']!r}")
                    reasons[names[-1]] = NO_IMAGE if image["bytes"] is None else check_bytes(image["bytes"])
            bar.update(len(rows))
    reasons |= check_images(paths)
    return names, {name: reasons[name] for name in names if reasons.get(name)}


def _title(benchmark: Benchmark) -> str:
    return " ".join(filter(None, (benchmark.name, benchmark.category, benchmark.split)))


def _summary(benchmark: Benchmark, problems: dict[str, str], listed: str) -> str:
    missing = sum(reason in ("missing", NO_IMAGE) for reason in problems.values())
    first = "; ".join(f"{name}: {reason}" for name, reason in list(problems.items())[:NAMES_SHOWN])
    more = "; ..." if len(problems) > NAMES_SHOWN else ""
    parents = {Path(name).parent for name, reason in problems.items() if reason == "missing"}
    absent = sorted(str(folder) for folder in parents if not folder.is_dir())
    folders = f". There is no folder {', nor '.join(absent[:NAMES_SHOWN])}" if absent else ""
    return (
        f"{_title(benchmark)} has {len(benchmark.queries):,} queries and {len(benchmark.gallery):,} gallery images; of their "
        f"files {missing:,} are missing and {len(problems) - missing:,} unreadable ({first}{more}). {listed}{folders}"
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
