"""Two processes measure what one does."""

import json
import os
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from m2c.checkpoints import load_model, load_processor
from m2c.data.benchmarks.scenes import load_scenes
from m2c.encoding import Extractor
from m2c.evaluation.evaluate import Options, evaluate


@pytest.fixture
def launch(tmp_path):
    """Runs a module or a script in two processes on the CPU."""

    def run(*arguments) -> str:
        launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
        environment = {**os.environ, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
        done = subprocess.run(
            [*launcher, *map(str, arguments)], capture_output=True, text=True, timeout=120, env=environment, cwd=tmp_path
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


def test_two_processes_write_what_one_writes(launch, command, make_cirr, injecting, tmp_path):
    root = make_cirr(tmp_path / "cirr")
    arguments = ["--model", injecting, "--benchmark", "cirr", "--root", root, "--batch_size", "4"]
    one = command("evaluate", *arguments, "--output", "one")
    assert one.exit_code == 0, one.output
    cache = ["--cache_dir", tmp_path / "other"]
    said = launch("-m", "m2c.cli", "evaluate", *arguments, *cache, "--output", "two")

    def content(folder: Path) -> tuple[dict, dict]:
        files = {path.name: path.read_text(encoding="utf-8") for path in folder.iterdir()}
        record = json.loads(files.pop("record.json"))
        return {key: value for key, value in record.items() if key not in ("seconds", "date")}, files

    (expected, expected_files), (record, files) = content(Path("one")), content(tmp_path / "two")
    assert files == expected_files and len(files) == 3
    assert (expected["environment"].pop("processes"), record["environment"].pop("processes")) == (1, 2)
    assert record == expected
    assert said.count("| cirr | 5 | 54 |") == 1, "one process speaks for all"
    assert not list((tmp_path / "other").rglob("*.partial"))


@pytest.mark.slow
def test_processes_may_have_different_stores(launch, injecting, tmp_path):
    """As on two machines, one of which has encoded some of the images before."""
    benchmark = load_scenes(6)
    for process, (queries, gallery) in enumerate(((range(5, 2, -1), range(0, 36, 3)), ([3, 1], range(9)))):
        extractor = Extractor(load_model(injecting).eval(), load_processor(injecting), tmp_path / f"cache{process}", 2)
        some = replace(benchmark, queries=benchmark.queries.select(queries))
        extractor.queries(some, [["x"] * len(queries)], "a photo of * that {text}")
        extractor.gallery(replace(benchmark, gallery=benchmark.gallery.select(gallery)))
    script = """
        import os, sys, torch
        from pathlib import Path
        from m2c.data.benchmarks.scenes import load_scenes
        from m2c.evaluation.evaluate import Options, evaluate

        folder, process = Path(sys.argv[2]), os.environ["RANK"]
        options = Options(batch_size=2, cache_dir=folder / f"cache{process}")
        evaluation = evaluate(sys.argv[1], [load_scenes(6)], options, lambda line: None)
        found = {"ranking": evaluation.parts[0][1].gallery, "figures": evaluation.record["figures"]}
        torch.save(found, folder / f"found{process}.pt")
    """
    (tmp_path / "script.py").write_text(textwrap.dedent(script), encoding="utf-8")
    launch(tmp_path / "script.py", injecting, tmp_path)
    expected = evaluate(injecting, [benchmark], Options(device="cpu", cache_dir=tmp_path / "cache"), lambda line: None)
    for process in (0, 1):
        found = torch.load(tmp_path / f"found{process}.pt", weights_only=True)
        assert torch.equal(found["ranking"], expected.parts[0][1].gallery)
        assert found["figures"] == expected.record["figures"]
