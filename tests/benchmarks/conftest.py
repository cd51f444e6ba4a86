"""Benchmarks are scripts, and import each other as scripts do."""

import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest


FOLDER = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def load_benchmark(monkeypatch):
    def load(name: str):
        monkeypatch.syspath_prepend(str(FOLDER))
        spec = spec_from_file_location(f"benchmark_of_{name}", FOLDER / f"{name}.py")
        module = module_from_spec(spec)
        monkeypatch.setitem(sys.modules, spec.name, module)
        spec.loader.exec_module(module)
        return module

    return load
