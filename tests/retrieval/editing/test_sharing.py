"""Two processes share what has to be asked."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import m2c


def run(folder: Path) -> list[dict]:
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    variables = {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(m2c.__file__).parents[1])}
    command = [*launcher, str(Path(__file__).with_name("sharing.py")), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, env={**os.environ, **variables})
    assert done.returncode == 0, done.stderr
    return [json.loads((folder / f"process-{process}.json").read_text()) for process in range(2)]


@pytest.mark.slow
def test_two_processes_ask_for_half_each_and_both_have_all(tmp_path):
    first, second = run(tmp_path)
    expected = [None, *(f"{number} dogs" for number in range(1, 9))]
    assert first["texts"] == second["texts"] == expected
    assert set(first["asked"]) | set(second["asked"]) == set("012345678")
    assert not set(first["asked"]) & set(second["asked"]) and 4 <= len(set(first["asked"])) <= 5
    assert second["lines"] == [], "one process speaks for all"
    assert first["lines"][:2] == [
        "edited caption: 0 of 9 are there; 9 to ask for",
        "edited caption: 3 replies were asked for again",
    ]
    assert first["lines"][2].startswith("edited caption: 1 of 9 have no usable reply")

    first, second = run(tmp_path)
    assert set(first["asked"]) | set(second["asked"]) == {"0"}
