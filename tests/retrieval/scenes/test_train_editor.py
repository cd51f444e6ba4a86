import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from m2c.data.scenes.world import random_scene, seeded
from m2c.retrieval.chat import load_chat
from m2c.retrieval.editing import Editor, EditRequest, edit
from m2c.retrieval.editing.parsing import parse
from m2c.retrieval.scenes import CAPTIONER_PATH, EDITOR_PATH
from m2c.retrieval.scenes.train_editor import (
    CAPTION_COUNTS,
    CONTEXT,
    build_tokenizer,
    draw_batch,
    draw_conversation,
    evaluate,
    parse_args,
    tokenize,
)
from m2c.retrieval.text_store import ADDED_OBJECTS, EDITED_CAPTION, TextStore


KINDS = (EDITED_CAPTION, ADDED_OBJECTS)


@pytest.fixture(scope="module")
def editor() -> Editor:
    return Editor(load_chat(str(EDITOR_PATH)), "scenes")


@given(st.integers(0, 10**9), st.sampled_from(KINDS), st.sampled_from(tuple(CAPTION_COUNTS)))
def test_a_reply_that_is_learned_is_one_that_can_be_used(seed, kind, count):
    rng = seeded(seed)
    item = draw_conversation(rng, random_scene(rng), kind, count, faults=True)
    assert len(item.request.captions) == count
    assert parse(item.reply, kind) == ("" if item.reply == "nothing" else item.reply)


def test_only_replies_are_learned_and_every_word_is_known():
    tokenizer = build_tokenizer()
    for seed in range(30):
        items = draw_batch(seeded(seed), 16, progress=seed / 30)
        batch = tokenize(tokenizer, items)
        assert tokenizer.unk_token_id not in batch["input_ids"] and batch["input_ids"].shape[1] <= CONTEXT - 128
        for ids, labels, item in zip(batch["input_ids"], batch["labels"], items, strict=True):
            learned = labels != -100
            assert torch.equal(ids[learned], labels[learned])
            assert tokenizer.decode(labels[learned]) == f"{item.reply} <end>"
            before = tokenizer.decode(ids[: learned.int().argmax()])
            assert before.startswith("<user> change") and before.endswith("<end> <assistant>")


def test_what_it_learned_from_is_what_it_is_asked(editor):
    """The shipped tokenizer makes of a request by [`Editor`] what stands before the labels in training."""
    tokenizer = editor.chat.tokenizer
    for kind in KINDS:
        rng = seeded("asked")
        item = draw_conversation(rng, random_scene(rng), kind, 3, faults=True)
        batch = tokenize(build_tokenizer(), [item])
        request = editor.ask(editor.prompt(kind).messages(item.request))
        asked = tokenizer.apply_chat_template([request.messages], add_generation_prompt=True, return_dict=True)
        assert asked["input_ids"][0] == batch["input_ids"][0][batch["labels"][0] == -100].tolist()


def test_the_shipped_editor(editor):
    """Of single captions half are exact; most of the others differ in one attribute."""
    figures = evaluate(editor, count=64)
    assert figures["exact_edits_of_1_caption"] > 0.35 and figures["exact_edits_of_5_captions"] > 0.2
    assert figures["exact_added_objects"] > 0.85


def test_the_record_of_the_shipped_editor_names_settings_and_prompts(editor):
    record = json.loads((EDITOR_PATH / "training.json").read_text())
    settings = vars(parse_args(["--output", "unused"]))
    assert {name: record[name] for name in settings if name != "output"} == {k: v for k, v in settings.items() if k != "output"}
    assert record["prompts"] == {kind: editor.prompt(kind).digest for kind in KINDS}, "train it again with the new prompts"


def test_the_shipped_models_are_small():
    files = [path for folder in (CAPTIONER_PATH, EDITOR_PATH) for path in folder.iterdir()]
    assert sum(path.stat().st_size for path in files) < 8e6
    assert {path.suffix for path in files} <= {".json", ".safetensors", ".jinja"}


def test_a_caption_that_is_wrong_still_gives_something_sensible(editor, tmp_path):
    """The caption took the circle for a ring, the modification gives it away; and words it never saw do no harm."""
    requests = [
        EditRequest(("a photo of a big red ring at the top left",), "make the circle blue"),
        EditRequest(("a zebra and a small red star at the top",), "make the star green"),
    ]
    ring, zebra = edit(TextStore(tmp_path / "texts"), editor, requests, EDITED_CAPTION, lambda line: None)
    assert "blue circle" in ring
    assert "green star" in zebra
