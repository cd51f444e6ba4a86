"""`m2c evaluate --method cvsi`, as users call it, with the captioner and the editor of scenes."""

import json

import pytest

from m2c.data.benchmarks.scenes import load_scenes
from m2c.evaluation import run as run_module


@pytest.fixture
def evaluate(command, injecting, monkeypatch):
    monkeypatch.setattr(run_module, "load_scenes", lambda: load_scenes(4))

    def run(*more):
        return command("evaluate", "--model", injecting, "--benchmark", "scenes", *more)

    return run


def test_every_option_is_in_the_record(evaluate):
    drawn = ["--caption_seed", 3, "--caption_temperature", 0.5, "--caption_top_p", 0.8, "--caption_max_new_tokens", 40]
    asked = ["--editor_seed", 5, "--editor_max_new_tokens", 100, "--edit", "joined", "--no-objects"]
    weighed = ["--weights", "0.5,0.4,0.1", "--caption_feature", "unit", "--tune"]
    done = evaluate("--method", "cvsi", "--captions", 2, *drawn, *asked, *weighed, "--output", "out")
    assert done.exit_code == 0, done.output
    with open("out/record.json", encoding="utf-8") as file:
        record = json.load(file)["query"]["complementary"]
    captioner, editor = record["captioner"], record["editor"]
    names = ("model", "seed", "temperature", "top_p", "max_new_tokens", "prompt")
    assert [captioner[name] for name in names] == ["scenes", 3, 0.5, 0.8, 40, None]
    assert [editor[name] for name in ("model", "seed", "max_new_tokens")] == ["scenes", 5, 100]
    assert (record["captions"], record["form"], record["objects"]) == (2, "joined", False)
    assert record["weights"] == {"alpha": 0.5, "beta": 0.4, "gamma": 0.1, "caption_feature": "unit"}
    assert record["tuned_on_these_queries"]["figure"] == "R@1"


def test_what_is_there_is_neither_written_again_nor_said_to_be_of_another_revision(evaluate):
    first, again = (evaluate("--method", "cvsi", "--captions", 1) for _ in range(2))
    assert "to write for" in first.stdout and "to ask for" in first.stdout
    assert again.exit_code == 0 and "to write" not in again.stdout and "to ask" not in again.stdout
    assert "revision" not in again.stdout


@pytest.mark.parametrize(
    "option", [("--captioner", "scenes"), ("--weights", "cirr"), ("--captions", 15), ("--tune",), ("--no-objects",)]
)
def test_without_cvsi_its_options_are_refused_by_name(evaluate, option):
    done = evaluate(*option)
    name = option[0].replace("--no-objects", "--objects/--no-objects")
    assert done.exit_code == 1 and done.stderr == f"error: {name}: only with --method cvsi\n"


def test_several_are_named_together(evaluate):
    assert "error: --editor, --captions: only with" in evaluate("--captions", 3, "--editor", "scenes").stderr


@pytest.mark.parametrize("who", ["captioner", "editor"])
def test_a_revision_reaches_whom_it_is_for(evaluate, who):
    done = evaluate("--method", "cvsi", f"--{who}_revision", "main")
    assert done.exit_code == 1 and "a folder has no revision main" in done.stderr
    assert {"captioner": "a captioner from", "editor": "a chat model from"}[who] in done.stderr
