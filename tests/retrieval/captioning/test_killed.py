"""Fillings that are killed, by kill -9 at any moment, and go on: no finished call is made twice, and nothing is lost."""

import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

import m2c
from m2c.retrieval.text_store import TextStore

from .stub import COUNT, caption_of


ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(m2c.__file__).parents[1])}


@pytest.fixture(scope="module")
def live():
    command = [sys.executable, Path(__file__).with_name("lives.py")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=ENVIRONMENT) as process:

        def live(**life) -> list[int]:
            process.stdin.write(json.dumps(life) + "\n")
            process.stdin.flush()
            return json.loads(process.stdout.readline())

        yield live
        process.stdin.close()


class Run:
    """One of several that fill a store; it notes its calls."""

    def __init__(self, log: Path, digests: list[str]):
        self.log, self.digests = log, digests
        log.touch()

    @property
    def about(self) -> dict:
        return {"log": str(self.log), "digests": self.digests}

    @property
    def calls(self) -> list[str]:
        return self.log.read_text().splitlines()


def stored(path: Path) -> dict[str, str]:
    """Texts by what was asked for, as a run notes its calls."""
    texts = list(TextStore(path).all()) if path.exists() else []
    return {f"{text.source['image']} {text.source['number']}": text.text for text in texts}


def all_captions(*runs: Run) -> dict[str, str]:
    wanted = [(digest, number) for run in runs for digest in run.digests for number in range(COUNT)]
    return {f"{digest} {number}": caption_of(digest, number) for digest, number in wanted}


def test_killed_ten_times(live, tmp_path):
    path, run, rng = tmp_path / "texts.sqlite", Run(tmp_path / "log", [f"p{number}" for number in range(16)]), random.Random(0)
    for death in range(10):
        before, known = len(run.calls), stored(path)
        life = {"calls": rng.randint(1, 6), "delay": rng.uniform(0, 0.004)}
        assert live(store=str(path), runs=[run.about], **life) == [-signal.SIGKILL]
        assert not set(run.calls[before:]) & known.keys(), f"what was stored before death {death} was asked for again"
        assert stored(path).items() >= known.items()
    assert live(store=str(path), runs=[run.about]) == [0]
    assert stored(path) == all_captions(run)
    assert len(run.calls) - len(set(run.calls)) <= 10, "a death costs the call that was not stored yet, and no other"
    finished = len(run.calls)
    assert live(store=str(path), runs=[run.about]) == [0] and len(run.calls) == finished


def test_killed_while_another_writes(live, tmp_path):
    """Two runs over a store; neither waits for one that is dead, nor loses by it."""
    path, rng = tmp_path / "texts.sqlite", random.Random(1)
    other = Run(tmp_path / "other", [f"q{number}" for number in range(10)])
    killed = Run(tmp_path / "killed", [f"p{number}" for number in range(8)])
    for _ in range(3):
        known = stored(path)
        before = len(killed.calls)
        life = {"calls": rng.randint(1, 6), "delay": rng.uniform(0, 0.004)}
        assert live(store=str(path), runs=[other.about, killed.about], **life) == [0, -signal.SIGKILL]
        assert not set(killed.calls[before:]) & known.keys()
        assert stored(path).items() >= known.items() | all_captions(other).items()
    assert live(store=str(path), runs=[other.about, killed.about]) == [0, 0]
    assert stored(path) == all_captions(other, killed)
    assert len(other.calls) == 10 * COUNT and len(killed.calls) - len(set(killed.calls)) <= 3
    assert sqlite3.connect(path).execute("PRAGMA integrity_check").fetchall() == [("ok",)]
