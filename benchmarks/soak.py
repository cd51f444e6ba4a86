"""Memory of a long run: two processes train on scenes, and their memory is looked at every few seconds.

    python benchmarks/soak.py                   # 20 minutes; --help for its options

Stage 1 on images that are augmented and encoded in every step, with a worker for each process that loads them, with validation
and checkpoints every 25 steps. Prints the memory of every process and how it grows, in MB an hour over the last three quarters
of the time, and writes `memory.csv` and `memory.png` beside the run. Counting begins with the first step.
"""

import csv
import json
import os
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Annotated

import psutil
import typer
from matplotlib.figure import Figure
from timing import print_table

import train_accelerate


PROCESSES = 2
SETTINGS = {
    "dataset": "scenes",
    "max_samples": 1000,
    "cached_views": 0,
    "num_workers": 1,
    "batch_size": 32,
    "max_steps": 1_000_000,
    "log_steps": 5,
    "validation_size": 200,
    "eval_steps": 25,
    "checkpoint_steps": 25,
    "keep_checkpoints": 3,
}
START_LIMIT_S = 600
STOP_LIMIT_S = 60


def start(run: Path, log: Path) -> subprocess.Popen:
    """The run, in a session of its own so that all its processes can be ended together."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(PROCESSES)]
    arguments = [text for name, value in SETTINGS.items() for text in (f"--{name}", str(value))]
    threads = str(max(1, os.cpu_count() // PROCESSES))
    with open(log, "w", encoding="utf-8") as output:
        return subprocess.Popen(
            [*launcher, train_accelerate.__file__, "--output_dir", str(run), *arguments],
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": threads},
            start_new_session=True,
        )


def stop(launched: subprocess.Popen) -> None:
    """Asks the run to end, which then saves a checkpoint; ends what is left of it."""
    if launched.poll() is None:
        launched.terminate()
        try:
            launched.wait(STOP_LIMIT_S)
        except subprocess.TimeoutExpired:
            pass
    try:
        os.killpg(launched.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass  # all of them had ended
    launched.wait()


def wait_for_steps(launched: subprocess.Popen, run: Path, log: Path) -> None:
    deadline = time.monotonic() + START_LIMIT_S
    while not (run / "log.jsonl").exists():
        if launched.poll() is not None or time.monotonic() > deadline:
            raise SystemExit(f"the run took no step; the end of {log}:\n{log.read_text(encoding='utf-8')[-3000:]}")
        time.sleep(1)


def sample(launched: subprocess.Popen) -> dict[str, float]:
    """Resident MB of every training process, and of the workers of each."""
    memory = {}
    for process in psutil.Process(launched.pid).children():
        rank = process.environ().get("LOCAL_RANK")
        if rank is None:
            continue  # a helper of the launcher
        workers = process.children(recursive=True)
        memory[f"process {rank}"] = process.memory_info().rss / 1e6
        memory[f"workers of {rank}"] = sum(worker.memory_info().rss for worker in workers) / 1e6
    return dict(sorted(memory.items()))


def watch(launched: subprocess.Popen, seconds: float, every: float) -> list[dict[str, float]]:
    """One sample after the other, with its time in seconds. Raises `SystemExit` if the run ends before its time."""
    began, samples = time.monotonic(), []
    while (now := time.monotonic() - began) < seconds:
        if launched.poll() is not None:
            raise SystemExit(f"the run ended after {now:.0f} s with exit code {launched.returncode}")
        try:
            samples.append({"seconds": now, **sample(launched)})
        except psutil.NoSuchProcess:
            pass  # a worker that ended while it was looked at
        time.sleep(every)
    return samples


def summarise(samples: list[dict[str, float]]) -> list[list[str]]:
    """For each process: median memory in the second eighth of the time and in the last, and growth in MB an hour."""
    rows, eighth, quarter = [], max(1, len(samples) // 8), len(samples) // 4
    for name in (f"process {rank}" for rank in range(PROCESSES)):
        values = [entry[name] for entry in samples]
        seconds = [entry["seconds"] for entry in samples]
        slope = statistics.linear_regression(seconds[quarter:], values[quarter:]).slope
        early, late = statistics.median(values[eighth : 2 * eighth]), statistics.median(values[-eighth:])
        rows.append([name, f"{early:,.0f} MB", f"{late:,.0f} MB", f"{3600 * slope:+,.0f} MB", f"{max(values):,.0f} MB"])
    return rows


def write(samples: list[dict[str, float]], folder: Path) -> None:
    names = list(samples[0])
    with open(folder / "memory.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, names)
        writer.writeheader()
        writer.writerows({name: round(value, 1) for name, value in entry.items()} for entry in samples)
    figure = Figure(figsize=(8, 4), layout="constrained")
    axes = figure.add_subplot()
    for name in names[1:]:
        style = "-" if name.startswith("process") else ":"
        axes.plot([entry["seconds"] / 60 for entry in samples], [entry[name] for entry in samples], style, label=name)
    axes.set(xlabel="minutes since the first step", ylabel="resident memory, MB", ylim=(0, None))
    axes.legend()
    axes.grid(alpha=0.3)
    figure.savefig(folder / "memory.png", dpi=110)


def main(
    minutes: Annotated[float, typer.Option(help="How long to look.")] = 20,
    every: Annotated[float, typer.Option(help="Seconds between two looks.")] = 3,
    output: Annotated[Path, typer.Option(help="New folder for the run, the figures and the picture.")] = Path("m2c-soak"),
) -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the run is ended, too
    output.mkdir(parents=True)
    run, log = output / "run", output / "run.log"
    launched = start(run, log)
    try:
        wait_for_steps(launched, run, log)
        samples = watch(launched, 60 * minutes, every)
    finally:
        stop(launched)
    write(samples, output)
    entries = [json.loads(line) for line in (run / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    measured = sum("validation_recall@1" in entry for entry in entries)
    print(f"{minutes:g} minutes, {len(samples)} looks, {entries[-1]['step']} steps, {measured} validations\n")
    print_table(["", "after the start", "at the end", "growth an hour", "most"], summarise(samples))


if __name__ == "__main__":
    typer.run(main)
