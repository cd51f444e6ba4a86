import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from m2c.retrieval.chat import Failure
from m2c.retrieval.editing.editor import Editor
from m2c.retrieval.editing.parsing import parse
from m2c.retrieval.editing.prompts import BENCHMARKS, GENERAL, EditRequest, Prompt
from m2c.retrieval.text_store import ADDED_OBJECTS, EDITED_CAPTION

from .scripted_chat import ScriptedChat


KINDS = (EDITED_CAPTION, ADDED_OBJECTS)
PROMPTS = [Prompt(name, kind) for name in (*BENCHMARKS, GENERAL) for kind in KINDS]
every_prompt = pytest.mark.parametrize("prompt", PROMPTS, ids=lambda prompt: f"{prompt.name} {prompt.kind}")


@every_prompt
def test_turns_alternate_and_end_with_the_request(prompt):
    turns = prompt.messages(EditRequest(("a CAPTION",), "a MODIFICATION"))
    assert [turn["role"] for turn in turns] == ["user", "assistant"] * (len(turns) // 2) + ["user"]
    assert "a CAPTION" in turns[-1]["content"] and "a MODIFICATION" in turns[-1]["content"]
    assert not any("CAPTION" in turn["content"] for turn in turns[:-1])


@every_prompt
def test_the_examples_are_replies_as_they_are_wanted(prompt):
    """What an example shows has to pass for a reply, and each prompt shows several captions as well as one."""
    turns = prompt.messages(EditRequest(("",), ""))
    replies = [turn["content"] for turn in turns if turn["role"] == "assistant"]
    assert [parse(reply, prompt.kind) for reply in replies] == ["" if reply == "nothing" else reply for reply in replies]
    if prompt.name != "scenes":
        assert len(replies) >= 3 and len(set(replies)) == len(replies)
        asked = [turn["content"] for turn in turns[:-1] if turn["role"] == "user"]
        several = ["Captions of the same picture:" in content for content in asked]
        assert any(several) and not all(several)
        assert ("nothing" in replies) == (prompt.kind == ADDED_OBJECTS)


texts = st.one_of(
    st.text(max_size=60),
    st.sampled_from(
        ["{{ 7 * 7 }}", "{% raw %}", "\"quoted\" and 'so'", "a 🦊 in 東京", "two\nlines\r\nand\ttabs ", "{# gone #}"]
    ),
)


@given(st.sampled_from(PROMPTS), st.lists(texts, min_size=1, max_size=4), texts)
def test_what_is_given_stays_as_it_is(prompt, captions, modification):
    *before, last = prompt.messages(EditRequest(tuple(captions), modification))
    *before_other, other = prompt.messages(EditRequest(("CAPTION",) * len(captions), "MODIFICATION"))
    assert before == before_other
    places = re.split("(CAPTION|MODIFICATION)", other["content"])
    values = iter(captions)
    written = [{"CAPTION": lambda: next(values), "MODIFICATION": lambda: modification}.get(p, lambda p=p: p)() for p in places]
    assert last["content"] == "".join(written)


def test_every_benchmark_and_kind_asks_otherwise():
    digests = {prompt.digest for prompt in PROMPTS}
    assert len(digests) == len(PROMPTS)
    assert Prompt("cirr", EDITED_CAPTION).digest == Prompt("cirr", EDITED_CAPTION).digest


def test_other_benchmarks_share_the_general_prompts():
    chat = ScriptedChat(lambda request: Failure("never asked"))
    assert Editor(chat, "genecis").generator(EDITED_CAPTION) == Editor(chat, "mine").generator(EDITED_CAPTION)
    assert Editor(chat, "genecis").generator(EDITED_CAPTION) != Editor(chat, "cirr").generator(EDITED_CAPTION)
