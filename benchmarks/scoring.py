"""Scoring of CIRR and CIRCO: time and memory, against the common way.

    python benchmarks/scoring.py        # some minutes on two cores, 8 GB of memory

Features are random, sizes are the benchmarks' own: CIRR val has 4,181 queries and 2,297 images with names such as
dev-1028-2-img0, CIRCO test 800 queries and 123,403 images; both have CLIP ViT-L/14's 768 numbers. "Common" is how evaluation
scripts of the field go about it, written here as the baseline: sort the whole gallery for every query, make a matrix of all
names in that order, compare strings. Every variant runs in processes of its own, in turns; memory is what the process's peak
grows by while it scores. Both must give the same figures.
"""

import resource
import statistics
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Annotated

import numpy as np
import torch
import typer
from datasets import Dataset
from timing import print_table

from m2c.data.benchmarks import GALLERY_FEATURES, QUERY_FEATURES, Benchmark, make_query
from m2c.evaluation.protocols import PROTOCOLS, measure, rank


SIZES = {"cirr": (4181, 2297), "circo": (800, 123_403)}
DIM = 768


def make_benchmark(name: str) -> Benchmark:
    """Queries at random over a gallery without pictures."""
    count, size = SIZES[name]
    generator = np.random.default_rng(0)
    numbers = generator.permutation(1_000_000)[:size]
    ids = [f"dev-{n // 1000}-{n % 1000 // 300}-img{n % 300}" if name == "cirr" else str(n) for n in numbers]
    queries = []
    for number in range(count):
        reference, target, *others = (ids[i] for i in generator.choice(size, 6, replace=False))
        lists = {"subset_ids": [target, *others]} if name == "cirr" else {"answer_ids": [target, *others[:2]]}
        queries.append(make_query(str(number), reference, ["is red"], target, **lists))
    gallery = Dataset.from_dict({"id": ids, "image": [None] * size, "box": [[]] * size}, features=GALLERY_FEATURES)
    return Benchmark(name, "val", gallery, Dataset.from_list(queries, features=QUERY_FEATURES))


def make_features(name: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Unit features, made in place: a peak of memory here would hide one of the scoring."""
    generator = torch.Generator().manual_seed(0)
    features = [torch.randn(size, DIM, generator=generator) for size in SIZES[name]]
    return tuple(part.div_(part.norm(dim=-1, keepdim=True)) for part in features)


def ours(benchmark: Benchmark, queries: torch.Tensor, gallery: torch.Tensor) -> dict[str, float]:
    protocol = PROTOCOLS[benchmark.name]
    return measure(benchmark, protocol, rank(benchmark, protocol, queries, gallery))


def common(benchmark: Benchmark, queries: torch.Tensor, gallery: torch.Tensor) -> dict[str, float]:
    columns, names = benchmark.queries[:], np.array(benchmark.gallery["id"][:])
    order = torch.argsort(1 - queries @ gallery.T, dim=-1).numpy()
    ranked = names[order]
    if benchmark.name == "circo":
        return common_circo(ranked, columns)
    references = np.repeat(np.array(columns["reference_id"])[:, None], len(names), axis=1)
    ranked = ranked[ranked != references].reshape(len(ranked), -1)
    targets = np.array(columns["target_id"])[:, None]
    found = ranked == np.repeat(targets, ranked.shape[1], axis=1)
    figures = {f"R@{k}": found[:, :k].any(axis=1).mean() for k in (1, 5, 10, 50)}
    # The image set of the annotations holds the reference, too.
    members = np.array([[reference, *subset] for reference, subset in zip(columns["reference_id"], columns["subset_ids"])])
    inside = (ranked[..., None] == members[:, None, :]).any(axis=-1)
    found = found[inside].reshape(len(ranked), -1)
    return figures | {f"subset R@{k}": found[:, :k].any(axis=1).mean() for k in (1, 2, 3)}


def common_circo(ranked: np.ndarray, columns: dict) -> dict[str, float]:
    figures = {}
    targets = np.repeat(np.array(columns["target_id"])[:, None], ranked.shape[1], axis=1)
    answers = columns["answer_ids"]
    for k in (5, 10, 25, 50):
        figures[f"R@{k}"] = (ranked == targets)[:, :k].any(axis=1).mean()
        hits = np.stack([np.isin(row[:k], correct) for row, correct in zip(ranked, answers)])
        precision = np.cumsum(hits, axis=1) * hits / np.arange(1, k + 1)
        figures[f"mAP@{k}"] = (precision.sum(axis=1) / [min(len(correct), k) for correct in answers]).mean()
    return figures


def run(name: str, variant: str) -> tuple[float, float, dict[str, float]]:
    """Seconds, growth of the peak memory in MB, and the figures in percent."""
    benchmark, features = make_benchmark(name), make_features(name)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started = time.perf_counter()
    figures = {"ours": ours, "common": common}[variant](benchmark, *features)
    seconds = time.perf_counter() - started
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    return seconds, grown, figures if variant == "ours" else {key: 100 * value for key, value in figures.items()}


def main(rounds: Annotated[int, typer.Option(help="Runs of each variant.")] = 3) -> None:
    rows = []
    for name, (count, size) in SIZES.items():
        seconds, memory = {"ours": [], "common": []}, {"ours": [], "common": []}
        for _ in range(rounds):
            figures = {}
            for variant in seconds:
                with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as executor:
                    taken, grown, figures[variant] = executor.submit(run, name, variant).result()
                seconds[variant].append(taken)
                memory[variant].append(grown)
            for key, value in figures["common"].items():
                if abs(value - figures["ours"][key]) > 1e-3:
                    raise SystemExit(f"{name}: {key} is {figures['ours'][key]} and {value}")
        medians = {variant: statistics.median(times) for variant, times in seconds.items()}
        for variant in seconds:
            ratio = medians["common"] / medians[variant]
            cells = [f"{medians[variant]:.2f} s", f"{ratio:.1f}", f"{max(memory[variant]):,.0f} MB"]
            rows.append([f"{name}, {count:,} x {size:,}", variant, *cells])
    print_table(["benchmark", "way", "time", "speed", "extra memory"], rows)


if __name__ == "__main__":
    typer.run(main)
