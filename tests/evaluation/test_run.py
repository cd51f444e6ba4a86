"""`m2c evaluate`, from files to files."""

import json
import re
import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from m2c.checkpoints import load_model, load_processor
from m2c.data.benchmarks import make_query, write_benchmark
from m2c.data.benchmarks.scenes import load_scenes
from m2c.evaluation import run as run_module
from m2c.evaluation.run import find_benchmark, run_evaluation
from processing_m2c import M2CProcessor


@pytest.fixture
def cirr(make_cirr, tmp_path) -> Path:
    return make_cirr(tmp_path / "cirr")


@pytest.fixture
def own(make_benchmark, tmp_path) -> Path:
    return write_benchmark(make_benchmark("abcdefgh", name="boxes"), tmp_path / "own")


@pytest.fixture
def evaluate(command):
    """Runs `m2c evaluate` with a model on a benchmark."""

    def run(model: str, benchmark: str, root: Path | None, *more):
        place = [] if root is None else ["--root", root]
        return command("evaluate", "--model", model, "--benchmark", benchmark, *place, *more)

    return run


def record_of(folder: str) -> dict:
    return json.loads((Path(folder) / "record.json").read_text(encoding="utf-8"))


def test_cirr_goes_end_to_end_and_its_files_pass_the_check(evaluate, command, cirr, injecting):
    done = evaluate(injecting, "cirr", cirr, "--output", "out")
    assert done.exit_code == 0, done.output
    assert "cirr, val: 5 queries, 54 gallery images" in done.output and "Wrote out" in done.output
    files = {path.name for path in Path("out").iterdir()}
    assert files == {"record.json", "table.md", "cirr-val-recall.json", "cirr-val-recall_subset.json"}
    figures = record_of("out")["figures"]
    scored = {}
    for metric in ("recall", "recall_subset"):
        paths = ["--annotations", cirr / "captions" / "cap.rc2.val.json", "--predictions", f"out/cirr-val-{metric}.json"]
        done = command("score", "--benchmark", "cirr", *paths, "--output", f"score-{metric}.json")
        assert done.exit_code == 0 and "valid" in done.output, done.output
        scored |= {
            name: figure["percent"] for name, figure in json.loads(Path(f"score-{metric}.json").read_text())["figures"].items()
        }
    assert {name: pytest.approx(value, abs=1e-3) for name, value in scored.items()} == figures
    assert set(figures) == {"R@1", "R@5", "R@10", "R@50", "subset R@1", "subset R@2", "subset R@3"}


def test_the_record_says_how_it_was_measured(evaluate, cirr, injecting):
    assert evaluate(injecting, "cirr", cirr, "--output", "out", "--batch_size", "7").exit_code == 0
    record = record_of("out")
    assert (record["benchmark"], record["split"]) == ("cirr", "val")
    part = record["parts"]["cirr"]
    assert (part["queries"], part["gallery"], part["left_out"]) == (5, 54, {})
    assert part["figures"] == record["figures"]
    assert record["protocol"]["recall"] == [1, 5, 10, 50] and record["protocol"]["excludes_reference"] is True
    assert record["query"] == {
        "kind": "composed",
        "conventions": "m2c",
        "prompt": "a photo of * , that {text}",
        "prompt_without_text": "a photo of *",
        "shared_concept": False,
        "first_query": ["a photo of * , that is painted green"],
    }
    preprocessing = record["preprocessing"]
    assert preprocessing["crop_size"] == {"height": 64, "width": 64} and preprocessing["target_pad"] is None
    assert len(preprocessing["image_mean"]) == 3
    model = record["model"]
    assert model["name"] == model["base"] == "injecting" and re.fullmatch("[0-9a-f]{64}", model["sha256"])
    assert (model["adapters"], model["dtype"], model["injection_layers"]) == ([], "float32", [0, 1])
    environment = record["environment"]
    assert environment["processes"] == 1 and {"torch", "transformers", "python", "m2c"} <= set(environment)
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", record["date"])


def test_the_record_names_the_adapter_by_its_content(evaluate, own, injecting, adapted):
    for name, folder in ((injecting, "without"), (adapted, "with")):
        assert evaluate(name, "own", own, "--output", folder).exit_code == 0
    (adapter,) = record_of("with")["model"]["adapters"]
    assert re.fullmatch(r"default, SHA-256 [0-9a-f]{64}", adapter)
    assert record_of("with")["model"]["sha256"] == record_of("without")["model"]["sha256"]


def test_the_record_knows_the_weights_whatever_the_folder_says(evaluate, own, injecting, tmp_path):
    shutil.copytree(injecting, tmp_path / "changed")
    weights = load_file(tmp_path / "changed" / "model.safetensors")
    weights["token_mapper.fc1.weight"] = -weights["token_mapper.fc1.weight"]
    save_file(weights, tmp_path / "changed" / "model.safetensors", metadata={"format": "pt"})
    for name, folder in ((injecting, "as-it-was"), (tmp_path / "changed", "with-another-weight")):
        assert evaluate(name, "own", own, "--output", folder).exit_code == 0
    assert record_of("as-it-was")["model"]["sha256"] != record_of("with-another-weight")["model"]["sha256"]


def test_nothing_that_is_written_names_a_path_of_this_machine(evaluate, cirr, injecting, adapted, tmp_path):
    for name in (injecting, adapted):
        folder = Path("out") / Path(name).name
        assert evaluate(name, "cirr", cirr, "--output", folder).exit_code == 0
        for path in folder.iterdir():
            content = path.read_text(encoding="utf-8")
            for place in (tmp_path, Path(name).parent, Path.home(), Path.cwd()):
                assert str(place) not in content, path.name


def test_the_table_holds_the_figures_and_their_counts(evaluate, cirr, injecting):
    done = evaluate(injecting, "cirr", cirr, "--output", "out")
    table, record = Path("out/table.md").read_text(encoding="utf-8"), record_of("out")
    header, _, row = table.strip().splitlines()
    assert header == "| | queries | gallery | R@1 | R@5 | R@10 | R@50 | subset R@1 | subset R@2 | subset R@3 |"
    assert row == f"| cirr | 5 | 54 | {' | '.join(f'{value:.2f}' for value in record['figures'].values())} |"
    assert table.strip() in done.output


def test_a_second_prompt_encodes_no_image(evaluate, cirr, injecting, tower):
    assert evaluate(injecting, "cirr", cirr).exit_code == 0
    assert tower.images == 54
    assert evaluate(injecting, "cirr", cirr, "--prompt", "* as if {text}", "--output", "out").exit_code == 0
    assert tower.images == 54
    assert record_of("out")["query"]["first_query"] == ["* as if is painted green"]


def test_an_output_folder_that_exists_is_an_error_before_any_work(evaluate, cirr, injecting, tower):
    Path("out").mkdir()
    Path("out/notes.txt").write_text("mine")
    done = evaluate(injecting, "cirr", cirr, "--output", "out")
    assert done.exit_code == 1 and "error: out exists already" in done.output
    assert tower.images == 0 and [path.name for path in Path("out").iterdir()] == ["notes.txt"]


def test_a_run_that_fails_leaves_no_output_folder(evaluate, cirr, injecting, tower):
    tower.limit = 8
    done = evaluate(injecting, "cirr", cirr, "--output", "out", "--batch_size", "4")
    assert done.exit_code == 130 and "the next run goes on from there" in done.output
    assert not Path("out").exists()


def test_plain_clip_composes_nothing_but_can_be_compared(evaluate, own):
    done = evaluate("scenes", "own", own)
    assert done.exit_code == 1 and "plain CLIP" in done.output and "m2c train" in done.output and "--query" in done.output
    kinds = {}
    for kind in ("text", "image", "sum"):
        done = evaluate("scenes", "own", own, "--query", kind, "--output", kind)
        assert done.exit_code == 0, done.output
        kinds[kind] = record_of(kind)["query"]
    assert kinds["image"] == {"kind": "image"}
    assert kinds["text"] == {"kind": "text", "shared_concept": False, "first_query": ["in red"]}


@pytest.mark.parametrize(
    "options, message",
    [
        (["--joining", "both"], "queries with several captions"),
        (["--shared_concept"], "no shared concept"),
        (["--query", "text", "--prompt", "a photo of * {text}"], "a prompt is for composed queries"),
        (["--batch_size", "0"], "greater than or equal to 1"),
    ],
)
def test_options_that_could_not_act_are_an_error(evaluate, own, injecting, options, message):
    done = evaluate(injecting, "own", own, *options)
    assert done.exit_code in (1, 2) and message in " ".join(done.output.split()), done.output


def test_a_template_of_the_checkpoint_counts(evaluate, own, injecting, tmp_path):
    shutil.copytree(injecting, tmp_path / "other")
    processor = load_processor(str(injecting))
    templates = {"composing_template": "* with {text}", "mapping_template": "picture : *"}
    M2CProcessor(processor.image_processor, processor.tokenizer, **templates).save_pretrained(tmp_path / "other")
    assert evaluate(tmp_path / "other", "own", own, "--output", "out").exit_code == 0
    asked = record_of("out")["query"]
    assert (asked["prompt"], asked["prompt_without_text"]) == ("* with {text}", "picture : *")
    assert asked["first_query"] == ["* with in red"]


def test_own_benchmarks_in_both_forms_give_the_same_figures(evaluate, make_benchmark, injecting, tmp_path):
    columns = {"subset_ids": ["b", "c", "e"], "answer_ids": ["b", "d"], "aspects": ["zoom"]}
    queries = [make_query("0", "a", ["in red"], "b", **columns), make_query("1", "c", ["with a dot"], "b", **columns)]
    benchmark = make_benchmark("abcdefgh", queries, name="mine")
    for form in ("imagefolder", "parquet"):
        write_benchmark(benchmark, tmp_path / form, form)
        done = evaluate(injecting, "own", tmp_path / form, "--output", form + "-out")
        assert done.exit_code == 0, done.output
        assert "| mAP@10 zoom |" in done.output
    figures = record_of("imagefolder-out")["figures"]
    assert record_of("parquet-out")["figures"] == figures
    assert {"R@1", "subset R@1", "mAP@5", "mAP@10 zoom"} < set(figures)
    assert {path.name for path in Path("parquet-out").iterdir()} == {"record.json", "table.md"}


def test_a_folder_that_is_called_like_a_benchmark_is_not_taken_for_it(evaluate, make_benchmark, injecting, tmp_path):
    root = write_benchmark(make_benchmark("abcdefgh"), tmp_path / "circo")
    (root / "benchmark.json").unlink()
    done = evaluate(injecting, "own", root)
    assert done.exit_code == 1 and "calls itself 'circo'" in done.output and "benchmark.json" in done.output


@pytest.mark.parametrize("benchmark", ["cirr", "circo", "fashioniq", "genecis", "own"])
def test_a_missing_root_is_an_error(evaluate, injecting, benchmark, tmp_path):
    done = evaluate(injecting, benchmark, None)
    assert done.exit_code == 1 and f"--root is missing: the folder with the files of {benchmark}" in done.output
    done = evaluate(injecting, benchmark, tmp_path / "nowhere")
    assert done.exit_code == 1 and "nowhere is not a folder" in done.output


def test_scenes_needs_no_root(command, injecting, monkeypatch):
    assert len(find_benchmark("scenes", None)[0].queries) == 500
    monkeypatch.setattr(run_module, "load_scenes", lambda: load_scenes(4))
    done = command("evaluate", "--model", injecting, "--benchmark", "scenes")
    assert done.exit_code == 0 and "| scenes | 4 | 24 |" in done.output


def test_missing_and_broken_images_stop_the_run_and_are_listed(evaluate, cirr, injecting, tower):
    (cirr / "dev" / "dev-2-0-img0.png").unlink()
    (cirr / "dev" / "dev-40-0-img0.png").write_text("<html>not here any more</html>")
    done = evaluate(injecting, "cirr", cirr, "--output", "out")
    assert done.exit_code == 1 and tower.images == 0 and not Path("out").exists()
    for said in ("5 queries and 54 gallery images", "1 are missing and 1 unreadable", "dev-2-0-img0.png: missing"):
        assert said in done.output
    assert "dev-40-0-img0.png: not an image" in done.output and "--allow_missing" in done.output
    listed = Path("missing-cirr-val.txt").read_text(encoding="utf-8").splitlines()
    assert [Path(line.split("\t")[0]).name for line in listed] == ["dev-2-0-img0.png", "dev-40-0-img0.png"]


def test_allowed_missing_images_are_counted_in_record_and_table(evaluate, cirr, injecting):
    for number in (2, 40):  # the first query's reference, and one that no query names
        (cirr / "dev" / f"dev-{number}-0-img0.png").unlink()
    done = evaluate(injecting, "cirr", cirr, "--output", "out", "--allow_missing")
    assert done.exit_code == 0, done.output
    part = record_of("out")["parts"]["cirr"]
    assert (part["queries"], part["gallery"]) == (4, 52)
    assert part["left_out"] == {"gallery images": 2, "queries": 1}
    line = "cirr: left out, because files are missing or unreadable: 2 gallery images, 1 queries."
    assert line in Path("out/table.md").read_text(encoding="utf-8") and line in done.output
    assert {path.name for path in Path("out").iterdir()} == {"record.json", "table.md"}
    assert "No file for the server was written" in done.output


def test_missing_images_of_all_categories_are_named_at_once(evaluate, injecting, write_json, tmp_path, picture):
    root = tmp_path / "fashioniq"
    for category in ("dress", "shirt", "toptee"):
        items = [{"candidate": f"{category}0", "target": f"{category}1", "captions": ["is red.", "is longer"]}]
        write_json(root / "captions" / f"cap.{category}.val.json", items)
        write_json(root / "image_splits" / f"split.{category}.val.json", [f"{category}{n}" for n in range(3)])
        (root / "images").mkdir(exist_ok=True)
        for seed in range(3):
            picture(seed).save(root / "images" / f"{category}{seed}.png")
    done = evaluate(injecting, "fashioniq", root, "--output", "out")
    assert done.exit_code == 0, done.output
    record = record_of("out")
    assert list(record["parts"]) == ["dress", "shirt", "toptee"]
    assert record["query"]["first_query"] == ["a photo of * , that is longer and is red"]
    assert "| mean | | | 100.00 | 100.00 |" in done.output
    for category in ("dress", "toptee"):
        (root / "images" / f"{category}2.png").unlink()
    done = evaluate(injecting, "fashioniq", root)
    assert done.exit_code == 1 and "dress2.jpg: missing" in done.output and "toptee2.jpg: missing" in done.output
    assert Path("missing-fashioniq-dress-val.txt").exists() and not Path("missing-fashioniq-shirt-val.txt").exists()


def test_a_test_split_without_targets_has_files_and_no_figures(evaluate, command, make_circo, make_cirr, injecting, tmp_path):
    circo, cirr = make_circo(tmp_path / "circo"), make_cirr(tmp_path / "cirr", "test1")
    cases = (
        ("circo", circo, "test", {"circo-test.json": circo / "annotations" / "test.json"}),
        ("cirr", cirr, "test1", dict.fromkeys(("cirr-test1-recall.json", "cirr-test1-recall_subset.json"))),
    )
    for benchmark, root, split, files in cases:
        done = evaluate(injecting, benchmark, root, "--split", split, "--output", split)
        assert done.exit_code == 0 and "targets of this split are secret" in done.output, done.output
        assert record_of(split)["figures"] == {} and record_of(split)["split"] == split
        assert {path.name for path in Path(split).iterdir()} == {"record.json", "table.md", *files}
        for name, annotations in files.items():
            annotations = annotations or root / "captions" / "cap.rc2.test1.json"
            paths = ["--annotations", annotations, "--predictions", f"{split}/{name}"]
            done = command("score", "--benchmark", benchmark, *paths)
            assert done.exit_code == 0 and "validated, not scored" in done.output, done.output


def test_circo_val_has_the_figures_of_its_own_file(evaluate, command, make_circo, injecting, tmp_path):
    root = make_circo(tmp_path / "circo")
    assert evaluate(injecting, "circo", root, "--output", "out").exit_code == 0
    paths = ["--annotations", root / "annotations" / "val.json", "--predictions", "out/circo-val.json"]
    assert command("score", "--benchmark", "circo", *paths, "--output", "score.json").exit_code == 0
    scored = json.loads(Path("score.json").read_text())["figures"]
    figures = record_of("out")["figures"]
    assert figures == {name: pytest.approx(figure["percent"], abs=1e-3) for name, figure in scored.items()}
    assert {"mAP@10 viewpoint", "mAP@10 addition"} < set(figures)


def test_the_shared_concept_is_asked_and_recorded(evaluate, make_circo, injecting, tmp_path):
    root = make_circo(tmp_path / "circo")
    assert evaluate(injecting, "circo", root, "--shared_concept", "--output", "out").exit_code == 0
    query = record_of("out")["query"]
    assert query["shared_concept"] is True and query["first_query"] == ["a photo of * that has no lid, a kettle"]


def test_a_gallery_too_small_for_the_server_is_measured_and_says_why_there_is_no_file(evaluate, cirr, injecting):
    path = cirr / "image_splits" / "split.rc2.val.json"
    path.write_text(json.dumps(dict(list(json.loads(path.read_text()).items())[:30])))
    done = evaluate(injecting, "cirr", cirr, "--output", "out")
    assert done.exit_code == 0 and "lists 29 names instead of exactly 50" in done.output, done.output
    assert record_of("out")["figures"]["R@50"] == 100
    assert {path.name for path in Path("out").iterdir()} == {"record.json", "table.md"}


@pytest.mark.parametrize("prompt", ["a photo of *", "a photo that {text}", ""])
def test_a_prompt_without_its_fields_is_an_error(evaluate, own, injecting, tower, prompt):
    done = evaluate(injecting, "own", own, "--prompt", prompt)
    assert done.exit_code == 1 and "must hold" in done.output and tower.images == 0


def test_a_checkpoint_of_numbers_that_are_not_finite_is_an_error(evaluate, own, injecting, tmp_path):
    import torch

    from m2c.checkpoints import load_processor, save_retriever

    model = load_model(injecting)
    with torch.no_grad():
        model.visual_projection.weight[0, 0] = torch.nan
    save_retriever(model, load_processor(injecting), tmp_path / "broken")
    done = evaluate(str(tmp_path / "broken"), "own", own, "--output", "out")
    assert done.exit_code == 1 and "not finite" in done.output and not Path("out").exists()


def test_a_model_that_is_none_is_an_error(evaluate, own, tmp_path):
    (tmp_path / "model").mkdir()
    done = evaluate(str(tmp_path / "model"), "own", own)
    assert done.exit_code == 1 and "cannot load a CLIP" in done.output


def test_a_store_that_cannot_be_used_is_an_error_with_the_remedy(evaluate, own, injecting, tmp_path):
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "images.sqlite").write_text("<html>" * 100)
    done = evaluate(injecting, "own", own)
    assert done.exit_code == 1 and "another --cache_dir" in done.output


def test_half_precision_measures_nearly_the_same(evaluate, cirr, injecting):
    for dtype in ("float32", "bfloat16"):
        assert evaluate(injecting, "cirr", cirr, "--dtype", dtype, "--output", dtype).exit_code == 0
    assert record_of("bfloat16")["model"]["dtype"] == "bfloat16"
    assert record_of("bfloat16")["figures"]["R@50"] == pytest.approx(record_of("float32")["figures"]["R@50"], abs=20.1)


def test_without_output_nothing_is_written(make_benchmark, injecting, options, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    lines = []
    evaluation = run_evaluation(injecting, [make_benchmark()], options=options(), say=lines.append)
    assert evaluation.record["parts"]["mine"]["queries"] == 2
    assert "| mine | 2 | 6 |" in "".join(lines) and [path.name for path in tmp_path.iterdir()] == ["cache"]
