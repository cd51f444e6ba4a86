"""One of every kind of folder, made of the shipped CLIP, as stage 1, stage 2, merging and conversion leave them."""

import json
import re
import shutil
from dataclasses import asdict
from pathlib import Path

import pytest
import torch

from m2c.checkpoints import load_model, load_processor, save_adapter, save_retriever
from m2c.conversion import convert
from m2c.data.benchmarks.scenes import load_scenes
from m2c.evaluation.evaluate import Options, evaluate
from m2c.evaluation.report import write_evaluation
from m2c.training import TrainingConfig
from m2c.training.tasks.adapters import add_composing_adapter


KINDS = ("base", "full", "adapter", "merged", "converted")
# Names with all that Markdown, YAML, Jinja, HTML and Python read as theirs.
HOSTILE = (
    'my "best" run',
    "it's | a ` pipe `` and ```fence```",
    "{{ config }} {% raw %} {# no #}",
    "---\n# heading: [x]\n- list: &anchor *alias !tag",
    "<script>alert(1)</script></details>",
    "yes",
    "1e3",
    "null",
    "~",
    "🦊 ключ\u2028line\x07bell",
    "`",
    " ",
    "half a pair \ud83e",
)


@pytest.fixture(params=HOSTILE)
def hostile(request) -> str:
    return request.param


@pytest.fixture(scope="session")
def record_of_training():
    """Makes a `training.json`; arguments are fields of the configuration."""

    def make(started_from: dict | None = None, **config) -> dict:
        settings = asdict(TrainingConfig(**config))
        for name in ("output_dir", "resume"):
            del settings[name]
        figures = {"processes": 2, "training_rows": 3000, "trained_parameters": 1234567}
        return {"config": settings, **figures, "started_from": started_from}

    return make


@pytest.fixture(scope="session")
def folders(tmp_path_factory, record_of_training, write_json) -> dict[str, Path]:
    """A folder of each kind, in a place that no card may name."""
    place = tmp_path_factory.mktemp("private")
    folders = {kind: place / kind for kind in KINDS}
    model, processor = load_model("scenes", mapper_hidden_size=16, injection_hidden_size=16), load_processor("scenes")
    save_retriever(_drawn(model, "token_mapper", "semantic_injection"), processor, folders["base"])
    trained = load_model(str(folders["base"]))
    add_composing_adapter(trained, TrainingConfig(stage=2, model=str(folders["base"]), lora_rank=4))
    save_retriever(_drawn(trained, "lora_B"), processor, folders["full"])
    save_adapter(trained, processor, folders["adapter"], base=str(folders["base"]))
    trained.merge_adapter()
    save_retriever(trained, processor, folders["merged"])
    _save_mapper(place / "phi.pt")
    convert(place / "phi.pt", folders["converted"], "searle", "scenes")

    stage1 = record_of_training(model="laion/CLIP-ViT-B-32-laion2B-s34B-b79K", dataset="someone/pairs")
    write_json(folders["base"] / "training.json", stage1)
    for kind in ("full", "adapter", "merged"):
        stage2 = record_of_training(stage1, stage=2, model="you/base", dataset="someone/triplets")
        write_json(folders[kind] / "training.json", stage2)
    return folders


def _save_mapper(path: Path) -> None:
    """A checkpoint in the layout of SEARLE, of the sizes of the shipped CLIP."""
    draw, mapper = torch.Generator().manual_seed(1), {}
    for index, (rows, columns) in {0: (512, 128), 3: (512, 512), 6: (128, 512)}.items():
        mapper[f"layers.{index}.weight"] = torch.randn(rows, columns, generator=draw) / 20
        mapper[f"layers.{index}.bias"] = torch.zeros(rows)
    torch.save({"Phi": mapper}, path)


@pytest.fixture(scope="session")
def home(folders, tmp_path_factory, write_json) -> Path:
    """`HF_HOME` of somebody who has loaded `you/<kind>` from the Hub."""
    home, commit = tmp_path_factory.mktemp("home"), "0" * 40
    # From the Hub, transformers looks for the weights under the name in here, also if they lie beside it.
    bases = {"adapter": "you/base", "full": "you/full"}
    for kind, folder in folders.items():
        repository = home / "hub" / f"models--you--{kind}"
        shutil.copytree(folder, repository / "snapshots" / commit)
        (repository / "refs").mkdir()
        (repository / "refs" / "main").write_text(commit)
        if kind in bases:
            path = repository / "snapshots" / commit / "adapter_config.json"
            write_json(path, {**json.loads(path.read_text()), "base_model_name_or_path": bases[kind]})
    # What a client leaves that has asked in vain; offline it could not know.
    (home / "hub" / "models--you--adapter" / ".no_exist" / commit).mkdir(parents=True)
    (home / "hub" / "models--you--adapter" / ".no_exist" / commit / "config.json").touch()
    return home


@pytest.fixture(scope="session")
def published(home) -> dict[str, Path]:
    """The folders as they lie on the Hub."""
    return {kind: home / "hub" / f"models--you--{kind}" / "snapshots" / ("0" * 40) for kind in KINDS}


@torch.no_grad()
def _drawn(model, *parts: str):
    """Weights of these parts that are large enough to matter, in half precision, as published CLIPs are."""
    draw = torch.Generator().manual_seed(0)
    for name, tensor in model.state_dict().items():
        if any(part in name for part in parts) and name.endswith("weight"):
            tensor.copy_(torch.randn(tensor.shape, generator=draw).mul(0.2).half())
    return model.eval()


@pytest.fixture
def copy_of(folders, tmp_path):
    """Copies the folder of a kind, to be changed by a test."""
    return lambda kind: shutil.copytree(folders[kind], tmp_path / kind)


@pytest.fixture(scope="session")
def evaluated(folders, tmp_path_factory) -> Path:
    """What `m2c evaluate --output` writes of the full model on a few queries of scenes."""
    options, output = Options(cache_dir=tmp_path_factory.mktemp("features"), device="cpu"), tmp_path_factory.mktemp("evaluated")
    write_evaluation(evaluate(str(folders["full"]), [load_scenes(5)], options, say=lambda _: None), output)
    return output


@pytest.fixture(scope="session")
def scenes_record(evaluated) -> dict:
    return json.loads((evaluated / "record.json").read_text())


@pytest.fixture
def make_record(scenes_record):
    """Records of other benchmarks of the same model, by their parts' figures; arguments replace fields of the record."""

    def make(benchmark: str, split: str, parts: dict[str, dict], protocol: dict, **fields) -> dict:
        counted = {
            name: {"figures": figures, "queries": 2017, "gallery": 3817, "left_out": {}} for name, figures in parts.items()
        }
        common = set.intersection(*(set(figures) for figures in parts.values()))
        mean = {name: parts[next(iter(parts))][name] for name in common}
        if len(parts) > 1:
            mean = {name: sum(figures[name] for figures in parts.values()) / len(parts) for name in common}
        changed = {"benchmark": benchmark, "split": split, "figures": mean, "parts": counted, "protocol": protocol}
        return {**scenes_record, **changed, **fields}

    return make


@pytest.fixture(scope="session")
def code_blocks():
    """The Python in a card."""
    return lambda text: re.findall(r"^```python\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
