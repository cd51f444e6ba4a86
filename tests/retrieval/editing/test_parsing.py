import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from m2c.retrieval.chat import Failure
from m2c.retrieval.editing.parsing import LONGEST, parse
from m2c.retrieval.text_store import ADDED_OBJECTS, EDITED_CAPTION


@pytest.mark.parametrize(
    "reply",
    [
        "a red dress",
        "  a red dress \n",
        '"a red dress"',
        "“a red dress”",
        "'a red dress'",
        "`a red dress`",
        "Edited caption: a red dress",
        "Edited caption:\n\na red dress",
        "**Edited caption:** a red dress",
        "**Edited Caption**: “a red dress”",
        "The new caption: a red dress",
        '"Edited caption: a red dress"',
        "### Answer: a red dress",
        "<think>The dress\nis blue.\n</think>\n\na red dress",
        "It is blue now.</think>a red dress",
        "a red\u00a0dress",
        "**a red dress**",
        "1. a red dress",
        "- **a red dress**",
    ],
)
def test_what_surrounds_a_caption_is_taken_off(reply):
    assert parse(reply, EDITED_CAPTION) == "a red dress"


@pytest.mark.parametrize(
    "reply",
    [
        'a sign that says "stop"',
        '"stop" and "go" signs',
        "a woman's dress",
        "a here-and-now poster",
        "a caption: the word on a poster",
        "a photo of a dog. It is lying on a bed.",
        "ein rotes Kleid mit Ärmeln",
        "一条红色的长裙",
        "surely the longest dress",
        "a bridge from here to there",
        "OK sign on a wall",
        "no dog, but a cat",
        "3 dogs and **two** cats",
        "**one** and **two**",
    ],
)
def test_a_caption_stays_as_it_is(reply):
    assert parse(reply, EDITED_CAPTION) == reply


@pytest.mark.parametrize(
    "reply, reason",
    [
        ("", "without words"),
        (" \n ", "without words"),
        ('""', "without words"),
        ("...", "without words"),
        ("Edited caption:", "without words"),
        ("<think>It is blue", "thinking without an end"),
        ("<think>It is blue</think>", "without words"),
        ("I'm sorry, but I cannot see the picture.", "refusal"),
        ("I\u2019m unable to edit this caption.", "refusal"),
        ("I can't help with that", "refusal"),
        ("Sorry, that is not possible", "refusal"),
        ("As an AI, I have no pictures", "refusal"),
        ("Unfortunately there is no dress", "refusal"),
        ("Sure! Here is the edited caption: a red dress", "chatter"),
        ("Here's the caption you asked for: a red dress", "chatter"),
        ("Certainly, a red dress", "chatter"),
        ("Ok: a red dress", "chatter"),
        ("Yes.", "chatter"),
        ("N/A", "chatter"),
        ("a red dress\n\nI changed the colour.", "several lines"),
        ("- a red dress\n- a long dress", "several lines"),
        ("a red\u2028dress", "several lines"),
        ("[edited caption]", "placeholder"),
        ("<caption>", "placeholder"),
        ('{"caption": "a red dress"}', "placeholder"),
        ("a red\0dress", "control characters"),
        ("a red \ud83d dress", "control characters"),
        ("a red dress " * 50, "more than 400 characters"),
    ],
)
def test_what_is_no_caption_is_refused(reply, reason):
    failure = parse(reply, EDITED_CAPTION)
    assert isinstance(failure, Failure) and reason in failure.reason
    assert "\n" not in failure.reason and len(failure.reason) < 200 and failure.reason.isascii()


@pytest.mark.parametrize(
    "reply, objects",
    [
        ("a red dress.", "a red dress"),
        ("Added objects: a red dress and a hat", "a red dress and a hat"),
        ("nothing", ""),
        ("Nothing.", ""),
        ('"nothing".', ""),
        ("Added objects: none", ""),
        ("No new objects", ""),
        ("Nothing is added.", ""),
        ("nothing but a hat", "nothing but a hat"),
        ("No new objects are added.", ""),
        ("Nothing else", ""),
        ("No.", ""),
        ("No change", ""),
        ("no additional items", ""),
        ("Added: a red hat", "a red hat"),
        ("Objects most likely added: a red hat", "a red hat"),
        ("New objects: a red hat", "a red hat"),
        ("a no-entry sign", "a no-entry sign"),
    ],
)
def test_added_objects_may_be_nothing(reply, objects):
    assert parse(reply, ADDED_OBJECTS) == objects


@pytest.mark.parametrize(
    "reply",
    [
        "None, only the color changes",
        "No objects are removed, but a red hat is added",
        "Nothing is removed, a hat is added",
        "Nothing. A red hat",
        "nothing, but a hat",
        "No new object: a red hat",
        "none (a hat is swapped)",
    ],
)
def test_what_begins_like_nothing_and_goes_on_is_asked_for_again(reply):
    failure = parse(reply, ADDED_OBJECTS)
    assert isinstance(failure, Failure) and "neither nothing nor" in failure.reason


def test_nothing_is_no_caption_of_its_own_and_a_phrase_is_short():
    assert parse("nothing", EDITED_CAPTION) == "nothing", "a caption is not judged by what it says"
    assert isinstance(parse("a hat and " * 30, ADDED_OBJECTS), Failure)
    assert isinstance(parse("", ADDED_OBJECTS), Failure), "silence is not nothing"


pieces = st.sampled_from(
    [*"\"'“”\n.[]", "**", ": ", "a red dress", "Edited caption:", "<think>", "</think>", "nothing", "sorry"]
)


@given(st.one_of(st.text(), st.lists(pieces, max_size=8).map("".join)), st.sampled_from([EDITED_CAPTION, ADDED_OBJECTS]))
@example('""a""', EDITED_CAPTION)
@example("'\"a\"'", ADDED_OBJECTS)
@example("caption: caption: a", EDITED_CAPTION)
def test_replies_of_any_kind(reply, kind):
    text = parse(reply, kind)
    if isinstance(text, Failure):
        return
    assert text in " ".join(reply.split()), "nothing is put in the place of what was replied"
    assert (text or kind == ADDED_OBJECTS) and len(text) <= LONGEST[kind] and len(text.splitlines()) <= 1
    if text:
        assert parse(text, kind) == text
