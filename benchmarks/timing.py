"""Times variants of the same work in turns, so that what else the machine does hits them alike."""

import statistics
import time
from collections.abc import Callable, Iterable
from itertools import chain


def time_in_turns(variants: dict[str, Callable[[], object]], rounds: int = 7) -> dict[str, float]:
    """Median seconds of each variant over `rounds` rounds, after one that is not counted."""
    seconds = {name: [] for name in variants}
    for turn in range(rounds + 1):
        for name, run in variants.items():
            started = time.perf_counter()
            run()
            if turn:
                seconds[name].append(time.perf_counter() - started)
    return {name: statistics.median(times) for name, times in seconds.items()}


def print_table(header: list[str], rows: Iterable[list[str]]) -> None:
    """A Markdown table, each row as it comes."""
    for row in chain((header, ["---"] * len(header)), rows):
        print(f"| {' | '.join(row)} |", flush=True)
