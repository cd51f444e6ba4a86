"""What is measured during training is what `m2c evaluate` measures afterwards, and measuring changes nothing."""

import json
import os
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from accelerate import Accelerator
from datasets import Dataset
from transformers.models.clip.modeling_clip import CLIPVisionModel

from m2c.checkpoints import load_model, load_processor, save_retriever
from m2c.data.benchmarks import QUERY_FEATURES, Benchmark, write_benchmark
from m2c.data.benchmarks.scenes import load_scenes
from m2c.evaluation.evaluate import Options, evaluate
from m2c.fingerprints import image_side_key
from m2c.training import TrainingConfig, build_data
from m2c.training import validation as module
from m2c.training.features.encoding import widen
from m2c.training.tasks.adapters import add_composing_adapter
from m2c.training.tasks.stages import ComposingTask, MappingTask
from m2c.training.validation import BenchmarkValidation, Validation, held_out_recall, read_benchmark
from modeling_m2c import M2CModel
from processing_m2c import M2CProcessor


QUERIES = 8


@pytest.fixture(scope="module")
def benchmark() -> Benchmark:
    return load_scenes(QUERIES)


@pytest.fixture(scope="module")
def processor() -> M2CProcessor:
    return load_processor("scenes")


@pytest.fixture
def model() -> M2CModel:
    """The shipped CLIP with M2C modules whose weights are large enough for an image to matter."""
    torch.manual_seed(0)
    model = load_model("scenes", mapper_hidden_size=16, injection_hidden_size=16, injection_layers=[0, 1]).eval()
    disturb(model.token_mapper, model.semantic_injection)
    return model


@pytest.fixture
def make_task(model, processor):
    def make(stage: int) -> MappingTask | ComposingTask:
        config = TrainingConfig(stage=stage, lora_dropout=0.5)
        if stage == 2:
            add_composing_adapter(model, config)
        return (MappingTask if stage == 1 else ComposingTask)(model, processor.mapping_prompt(1, return_tensors="pt"), config)

    return make


@torch.no_grad()
def disturb(*modules: torch.nn.Module) -> None:
    for module_ in modules:
        for parameter in module_.parameters():
            if parameter.requires_grad and parameter.ndim > 1:
                parameter.normal_(std=0.2)


@pytest.fixture
def encoded(monkeypatch) -> list[int]:
    """How many images each pass through the vision tower took."""
    counts, forward = [], CLIPVisionModel.forward

    def counted(self, pixel_values, *args, **kwargs):
        counts.append(len(pixel_values))
        return forward(self, pixel_values, *args, **kwargs)

    monkeypatch.setattr(CLIPVisionModel, "forward", counted)
    return counts


@pytest.mark.parametrize("stage", [1, 2])
def test_it_is_what_m2c_evaluate_measures_of_the_saved_model(make_task, processor, benchmark, stage, tmp_path, encoded):
    task = make_task(stage)
    validation = BenchmarkValidation([benchmark], task.model, processor, tmp_path / "cache")
    before = validation.measure()
    key, images = image_side_key(task.model, processor), sum(encoded)
    disturb(task)  # as training does
    figures = validation.measure()
    assert figures != before
    save_retriever(task.model, processor, tmp_path / "saved")
    options = Options(cache_dir=tmp_path / "cache", device="cpu")
    expected = evaluate(str(tmp_path / "saved"), [benchmark], options, list).record["figures"]
    names = {"R@1", "R@5", "R@10", "subset_R@1", "mAP@10"}
    assert figures == {f"validation_scenes_{name.replace(' ', '_')}": value for name, value in expected.items()}
    assert set(figures) == {f"validation_scenes_{name}" for name in names}
    assert image_side_key(task.model, processor) == key, "training leaves the image side alone"
    assert sum(encoded) == images, "and so neither of the two encodes an image again"


@pytest.mark.parametrize("injection_layers", [[], [0, 1]])
def test_images_are_encoded_once_and_before_training(processor, benchmark, injection_layers, tmp_path, encoded, monkeypatch):
    model = load_model("scenes", mapper_hidden_size=16, injection_hidden_size=16, injection_layers=injection_layers).eval()
    validation = BenchmarkValidation([benchmark], model, processor, tmp_path)
    assert sum(encoded) == len(benchmark.gallery)
    with monkeypatch.context() as patch:
        patch.setattr("m2c.encoding.extraction.DataLoader", None)  # no process that reads images is started for nothing
        validation.measure()
        validation.measure()
    assert sum(encoded) == len(benchmark.gallery)
    BenchmarkValidation([benchmark], model, processor, tmp_path)
    assert sum(encoded) == len(benchmark.gallery), "nor by the next run"


def test_the_mean_over_the_parts_of_a_benchmark(model, processor, benchmark, tmp_path):
    parts = [
        replace(benchmark, name="fashioniq", category=category, queries=benchmark.queries.select(rows))
        for category, rows in (("dress", range(3)), ("shirt", range(3, QUERIES)))
    ]
    figures = [BenchmarkValidation([part], model, processor, tmp_path).measure() for part in parts]
    both = BenchmarkValidation(parts, model, processor, tmp_path)
    assert both.metric == "validation_fashioniq_R@10"
    assert both.measure() == {name: pytest.approx((figures[0][name] + figures[1][name]) / 2) for name in figures[0]}
    assert figures[0] != figures[1]


@pytest.mark.parametrize(
    ("name", "metric"),
    [
        ("cirr", "validation_cirr_R@1"),
        ("circo", "validation_circo_mAP@5"),
        ("fashioniq", "validation_fashioniq_R@10"),
        ("genecis", "validation_genecis_subset_R@1"),
        ("scenes", "validation_scenes_R@1"),
        ("my shoes", "validation_my_shoes_R@1"),
    ],
)
def test_the_main_figure_is_among_those_measured(model, processor, benchmark, name, metric, tmp_path):
    aspects = benchmark.queries.map(lambda row: {"aspects": ["addition"]}, features=QUERY_FEATURES)
    validation = BenchmarkValidation([replace(benchmark, name=name, queries=aspects)], model, processor, tmp_path)
    figures = validation.measure()
    assert validation.metric == metric and 0 <= figures[metric] <= 100
    assert not [figure for figure in figures if " " in figure or "addition" in figure]


@pytest.fixture
def held_out(make_task, processor):
    """A task and the features of nine rows, by stage."""

    def make(stage: int):
        task = make_task(stage)
        disturb(task)
        config = TrainingConfig(stage=stage, max_samples=4, validation_size=9)
        return task, build_data(config, task.model, processor)[1]

    return make


@torch.no_grad()
@pytest.mark.parametrize("stage", [1, 2])
@pytest.mark.parametrize("batch_size", [2, 9, 256])
def test_recall_on_held_out_rows(held_out, stage, batch_size, monkeypatch):
    task, rows = held_out(stage)
    queries, answers = task.eval().retrieve(**widen(rows.__getitems__(list(range(9)))))
    place = (queries @ answers.T).argsort(dim=-1, descending=True).argsort(dim=-1).diagonal()
    monkeypatch.setattr(module, "BATCH_SIZE", batch_size)
    figures = held_out_recall(task, rows, Accelerator(cpu=True))
    assert figures == {f"validation_recall@{k}": (place < k).double().mean().item() for k in (1, 5, 10)}
    assert figures["validation_recall@1"] < 1


class Pairs(list):
    """Queries with their answers, as data of features are."""

    @staticmethod
    def collate(pairs: list[tuple[torch.Tensor, torch.Tensor]]) -> dict[str, torch.Tensor]:
        queries, answers = zip(*pairs)
        return {"queries": torch.stack(queries), "answers": torch.stack(answers)}


def test_of_equal_answers_the_same_comes_first_however_rows_are_shared(monkeypatch):
    queries = torch.randn(40, 3, generator=torch.Generator().manual_seed(0))
    rows = Pairs(zip(queries, queries[::2].repeat_interleave(2, dim=0)))
    task = SimpleNamespace(retrieve=lambda queries, answers: (queries, answers))
    monkeypatch.setattr(module, "BATCH_SIZE", 3)
    expected = held_out_recall(task, rows, Accelerator(cpu=True))
    monkeypatch.setattr(module, "gather_object", lambda parts: parts[1::2] + parts[::2])
    assert held_out_recall(task, rows, Accelerator(cpu=True)) == expected


@pytest.mark.parametrize("stage", [1, 2])
def test_measuring_changes_nothing_and_sees_no_dropout(held_out, processor, benchmark, stage, tmp_path):
    task, rows = held_out(stage)
    task.train()
    before = {name: tensor.clone() for name, tensor in task.state_dict().items()}
    on_benchmark = BenchmarkValidation([benchmark], task.model, processor, tmp_path)
    validation = Validation(Accelerator(cpu=True), task, rows, on_benchmark)
    task.train()
    random_state = torch.get_rng_state()
    first = validation.measure()
    assert torch.equal(torch.get_rng_state(), random_state)
    for name, tensor in task.state_dict().items():
        assert torch.equal(tensor, before[name]), name
    assert not any(parameter.grad is not None for parameter in task.parameters())
    torch.manual_seed(99)
    task.train()
    assert validation.measure() == first
    assert set(first) > {"validation_recall@1", "validation_scenes_R@1"}


def test_early_stopping_looks_at_the_benchmark_if_there_is_one(held_out, processor, benchmark, tmp_path):
    task, rows = held_out(1)
    on_benchmark = BenchmarkValidation([benchmark], task.model, processor, tmp_path)
    for expected, arguments in (
        ("validation_scenes_R@1", (rows, on_benchmark)),
        ("validation_scenes_R@1", (None, on_benchmark)),
        ("validation_recall@1", (rows, None)),
        (None, (None, None)),
    ):
        validation = Validation(Accelerator(cpu=True), task, *arguments)
        assert validation.metric == expected and (expected is None or expected in validation.measure())


@pytest.fixture
def own(benchmark, tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return write_benchmark(replace(benchmark, name="mine"), tmp_path / "own")


def read(root: Path) -> list[Benchmark]:
    return read_benchmark(TrainingConfig(validation_benchmark="own", validation_root=str(root)))


def test_benchmarks_are_read_from_files_and_images_looked_at(own, tmp_path):
    (part,) = read(own)
    assert (part.name, len(part.queries)) == ("mine", QUERIES)
    missing = next(own.glob("gallery/**/*.png"))
    missing.unlink()
    with pytest.raises(ValueError, match=f"1 are missing and 0 unreadable .*{missing.name}: missing"):
        read(own)
    with pytest.raises(ValueError, match="nowhere is not a folder"):
        read(tmp_path / "nowhere")
    assert read_benchmark(TrainingConfig()) == []


def test_scenes_need_no_files(benchmark, monkeypatch):
    monkeypatch.setattr(module, "load_scenes", lambda: benchmark)
    assert read_benchmark(TrainingConfig(validation_benchmark="scenes")) == [benchmark]


def test_secret_targets_cannot_be_measured(benchmark, tmp_path):
    rows = [{**row, "target_id": None, "answer_ids": []} for row in benchmark.queries]
    secret = replace(benchmark, name="mine", queries=Dataset.from_list(rows, features=QUERY_FEATURES))
    with pytest.raises(ValueError, match=r"targets of .* are secret"):
        read(write_benchmark(secret, tmp_path / "secret"))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"validation_benchmark": "cirr"}, "--validation_root is missing: the folder with the files of cirr"),
        ({"validation_benchmark": "scenes", "validation_root": "x"}, "--validation_root is for"),
        ({"validation_root": "x"}, "--validation_root is for"),
        ({"early_stopping": 2}, "--early_stopping needs something to measure"),
        ({"early_stopping": -1, "validation_size": 3}, "--early_stopping must not be negative"),
    ],
)
def test_settings_that_make_no_sense_together(fields, message):
    with pytest.raises(ValueError, match=message):
        TrainingConfig(**fields)


def test_two_processes_measure_what_one_does_and_one_of_them_writes(held_out, processor, own, tmp_path):
    """Every process gets the same figures, from its share of the queries and of the held-out rows."""
    task, rows = held_out(2)
    save_retriever(task.model, processor, tmp_path / "saved")
    script = """
        import json, sys
        from pathlib import Path
        from accelerate import Accelerator
        from m2c.checkpoints import load_model, load_processor
        from m2c.training import TrainingConfig, build_data, validation
        from m2c.training.records import tracking
        from m2c.training.records.run_record import record_start
        from m2c.training.tasks.stages import ComposingTask

        folder, own = Path(sys.argv[1]), sys.argv[2]
        config = TrainingConfig(
            stage=2, max_samples=4, validation_size=9, validation_benchmark="own", validation_root=own, cache_dir=str(folder),
            output_dir=str(folder / "out"), report_to=["tensorboard"],
        )
        accelerator = Accelerator(log_with=tracking.log_with(config), project_dir=config.output_dir)
        record_start(config, accelerator)
        tracking.start(accelerator, config, 0)
        validation.BATCH_SIZE = 4
        model, processor = load_model(str(folder / "saved")).eval(), load_processor(str(folder / "saved"))
        task = ComposingTask(model, processor.mapping_prompt(1, return_tensors="pt"), config)
        rows = build_data(config, model, processor)[1]
        parts = validation.read_benchmark(config)
        benchmark = validation.BenchmarkValidation(parts, model, processor, folder / "cache")
        figures = validation.Validation(accelerator, task, rows, benchmark).measure()
        accelerator.log(figures, step=1)
        tracking.end(accelerator)
        (folder / f"figures-{accelerator.process_index}.json").write_text(json.dumps(figures))
    """
    (tmp_path / "out").mkdir()
    (tmp_path / "script.py").write_text(textwrap.dedent(script), encoding="utf-8")
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    environment = {**os.environ, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    command = [*launcher, tmp_path / "script.py", tmp_path, own]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=120, env=environment)
    assert done.returncode == 0, done.stderr
    on_benchmark = BenchmarkValidation(read(own), task.model, processor, tmp_path / "other")
    expected = Validation(Accelerator(cpu=True), task, rows, on_benchmark).measure()
    assert "validation_mine_R@1" in expected and "validation_recall@1" in expected
    for process in (0, 1):
        assert json.loads((tmp_path / f"figures-{process}.json").read_text()) == expected
    (start,) = json.loads((tmp_path / "out" / "run.json").read_text())
    assert (start["processes"], start["devices"], start["threads"]) == (2, ["cpu", "cpu"], 1)
    assert len(list((tmp_path / "out").rglob("*tfevents*"))) == 1
