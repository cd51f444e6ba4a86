"""`m2c evaluate`: from files on disk to files on disk."""

from collections.abc import Callable
from pathlib import Path

from m2c.data.benchmarks import Benchmark, check_benchmark, load_benchmark
from m2c.data.benchmarks.scenes import load_scenes
from m2c.encoding import processes
from m2c.output_folder import new_folder, refuse_existing

from .evaluate import DEFAULTS, Evaluation, Options, evaluate
from .report import table, write_evaluation


def run_evaluation(
    model: str,
    benchmarks: list[Benchmark],
    allow_missing: bool = False,
    output: Path | None = None,
    options: Options = DEFAULTS,
    say: Callable[[str], None] = print,
) -> Evaluation:
    """Checks a benchmark's images, measures a retriever on it, and writes what comes out.

    Args:
        model: a folder or a repository of the Hub.
        benchmarks: the parts of the benchmark.
        allow_missing: go on without images that are missing or unreadable.
        output: folder for record, table and the files for a server; it appears when all is done. `None` writes none.
        options: how to measure.
        say: prints a line of progress.

    Raises:
        ValueError: if images are missing, or as [`m2c.evaluation.evaluate.evaluate`] raises it.
        FileExistsError: if `output` exists and is not empty.
    """
    state = processes()
    is_writing = output is not None and state.is_main_process
    tell = say if state.is_main_process else lambda _: None
    if is_writing:
        refuse_existing(output)
    evaluation = evaluate(model, check_benchmarks(benchmarks, allow_missing, tell), options, tell)
    tell(f"\n{table(evaluation.record)}\n")
    if is_writing:
        with new_folder(output) as folder:
            for line in write_evaluation(evaluation, folder):
                tell(line)
        tell(f"Wrote {output}: record.json says how this was measured.")
    return evaluation


def find_benchmark(
    name: str, root: Path | None, split: str | None = None, category: str | None = None, gallery: str = "original"
) -> list[Benchmark]:
    """[`load_benchmark`], and scenes, which needs no files. Raises `ValueError` if the root is missing or wrong."""
    if name == "scenes":
        if (root, split, category, gallery) != (None, None, None, "original"):
            raise ValueError("scenes is drawn on the spot; leave out --root, --split, --category and --gallery")
        return [load_scenes()]
    if root is None:
        raise ValueError(f"--root is missing: the folder with the files of {name}")
    return load_benchmark(name, root, split, category, gallery)


def check_benchmarks(benchmarks: list[Benchmark], allow_missing: bool, say: Callable[[str], None]) -> list[Benchmark]:
    """[`check_benchmark`] for every part; what is wrong with any of them is one `ValueError`."""
    checked, problems = [], []
    for benchmark in benchmarks:
        title = "-".join(filter(None, (benchmark.name, benchmark.category, benchmark.split)))
        try:
            checked.append(check_benchmark(benchmark, allow_missing, Path(f"missing-{title}.txt"), say))
        except ValueError as error:
            problems.append(str(error))
    if problems:
        raise ValueError("\n".join(problems))
    return checked
