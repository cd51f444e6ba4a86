import os
import signal

import pytest

from m2c.retrieval.chat import Failure
from m2c.retrieval.editing import Editor, EditRequest, edit
from m2c.retrieval.editing.fill import HOPELESS
from m2c.retrieval.text_store import ADDED_OBJECTS, EDITED_CAPTION, TextStore

from .scripted_chat import ScriptedChat, last_turn


REQUESTS = [EditRequest((f"a dog on chair {number}",), f"make it {number} dogs") for number in range(12)]


@pytest.fixture
def store(tmp_path) -> TextStore:
    return TextStore(tmp_path / "texts.sqlite")


def number_of(request) -> int:
    return int(last_turn(request).split("chair ")[1].split()[0])


def dogs(request) -> str:
    return f"{number_of(request)} dogs"


def silent(_: str) -> None: ...


def test_equal_requests_are_asked_once_and_what_is_stored_never_again(store):
    chat = ScriptedChat(dogs)
    wanted = [REQUESTS[2], REQUESTS[0], REQUESTS[2], REQUESTS[1]]
    lines = []
    assert edit(store, Editor(chat, "cirr"), wanted, EDITED_CAPTION, lines.append) == ["2 dogs", "0 dogs", "2 dogs", "1 dogs"]
    assert len(chat.asked) == 3 and all((r.temperature, r.seed, r.max_new_tokens) == (0, 0, 128) for r in chat.asked)
    assert lines == ["edited caption: 0 of 3 are there; 3 to ask for"]

    assert edit(store, Editor(chat, "cirr"), REQUESTS[:4], EDITED_CAPTION, lines.append) == [f"{n} dogs" for n in range(4)]
    assert len(chat.asked) == 4 and lines[1:] == ["edited caption: 3 of 4 are there; 1 to ask for"]
    assert edit(store, Editor(chat, "cirr"), REQUESTS[:4], EDITED_CAPTION, lines.append)[3] == "3 dogs"
    assert len(chat.asked) == 4 and len(lines) == 2


def test_what_decides_a_reply_is_told_apart(store):
    first = ScriptedChat(dogs)
    edit(store, Editor(first, "cirr"), REQUESTS[:1], EDITED_CAPTION, silent)
    others = [
        (Editor(ScriptedChat(dogs), "circo"), REQUESTS[0], EDITED_CAPTION),
        (Editor(ScriptedChat(dogs), "cirr"), REQUESTS[0], ADDED_OBJECTS),
        (Editor(ScriptedChat(dogs), "cirr", seed=1), REQUESTS[0], EDITED_CAPTION),
        (Editor(ScriptedChat(dogs), "cirr", max_new_tokens=9), REQUESTS[0], EDITED_CAPTION),
        (Editor(ScriptedChat(dogs, "another"), "cirr"), REQUESTS[0], EDITED_CAPTION),
        (Editor(ScriptedChat(dogs), "cirr"), EditRequest(REQUESTS[0].captions * 2, REQUESTS[0].modification), EDITED_CAPTION),
        (Editor(ScriptedChat(dogs), "cirr"), EditRequest(REQUESTS[0].captions, "make it none"), EDITED_CAPTION),
    ]
    for editor, request, kind in others:
        edit(store, editor, [request], kind, silent)
        assert len(editor.chat.asked) == 1
    assert len(list(store.all())) == 1 + len(others)


@pytest.mark.parametrize("unusable", ["I'm sorry, I cannot", "", "one\ntwo", Failure("cut off after 128 tokens")])
def test_an_unusable_reply_is_asked_for_again_and_never_replaced(store, unusable):
    """Number 3 comes right at the third try, number 5 never does."""

    def script(request):
        tries = request.seed
        return unusable if number_of(request) == 5 or (number_of(request) == 3 and tries < 2) else dogs(request)

    chat, lines = ScriptedChat(script), []
    texts = edit(store, Editor(chat, "general"), REQUESTS, EDITED_CAPTION, lines.append)
    assert texts == [None if number == 5 else f"{number} dogs" for number in range(12)]
    tries = [[(r.seed, r.temperature) for r in chat.asked if number_of(r) == number] for number in (3, 5, 7)]
    assert tries == [[(0, 0), (1, 0.7), (2, 0.7)], [(n, 0.7 if n else 0) for n in range(4)], [(0, 0)]]
    assert lines[1] == "edited caption: 5 replies were asked for again"
    assert lines[2].startswith("edited caption: 1 of 12 have no usable reply: the modification 'make it 5 dogs': ")

    patient = ScriptedChat(lambda request: unusable if request.seed < 6 else dogs(request))
    texts = edit(
        TextStore(store.path.with_name("other")), Editor(patient, "general", tries=7), REQUESTS[:1], EDITED_CAPTION, silent
    )
    assert texts == ["0 dogs"] and [r.seed for r in patient.asked] == list(range(7))

    again = ScriptedChat(dogs)
    assert edit(store, Editor(again, "general"), REQUESTS, EDITED_CAPTION, silent)[5] == "5 dogs"
    assert len(again.asked) == 1, "only what is missing is asked for"


def test_nothing_added_is_a_reply_as_any_other(store):
    chat = ScriptedChat(lambda request: "nothing" if number_of(request) else "a dog.")
    for _ in range(2):
        assert edit(store, Editor(chat, "cirr"), REQUESTS[:2], ADDED_OBJECTS, silent) == ["a dog", ""]
    assert len(chat.asked) == 2


def test_a_model_that_never_gets_it_right_is_given_up(store):
    requests = [EditRequest((f"a dog on chair {number}",), "more") for number in range(HOPELESS + 50)]
    chat = ScriptedChat(lambda request: dogs(request) if number_of(request) > HOPELESS + 40 else "I am sorry")
    with pytest.raises(ValueError, match=f"{HOPELESS} replies in a row have failed.*refusal.*choose another editor"):
        edit(store, Editor(chat, "cirr"), requests, EDITED_CAPTION, silent)
    assert len(chat.asked) == HOPELESS + 9 and len(list(store.all())) == 9


def test_many_failures_among_the_others_are_not_hopeless(store):
    requests = [EditRequest((f"a dog on chair {number}",), "more") for number in range(2 * HOPELESS)]
    chat = ScriptedChat(lambda request: dogs(request) if number_of(request) % 2 else "I am sorry")
    texts = edit(store, Editor(chat, "cirr"), requests, EDITED_CAPTION, silent)
    assert texts == [f"{number} dogs" if number % 2 else None for number in range(2 * HOPELESS)]


def test_what_was_replied_before_an_error_is_kept(store):
    def script(request):
        if number_of(request) == 4:
            raise OSError("the server is gone")
        return dogs(request)

    with pytest.raises(OSError, match="the server is gone"):
        edit(store, Editor(ScriptedChat(script), "cirr"), REQUESTS, EDITED_CAPTION, silent)
    chat = ScriptedChat(dogs)
    assert edit(store, Editor(chat, "cirr"), REQUESTS, EDITED_CAPTION, silent) == [f"{number} dogs" for number in range(12)]
    assert sorted(map(number_of, chat.asked)) == [0, 1, 2, 3, 4]


def test_killed_and_resumed_no_finished_call_is_repeated(tmp_path):
    """Each life replies twice, and dies while the third reply is on its way."""
    path, log = tmp_path / "texts.sqlite", tmp_path / "asked"

    def life() -> None:
        replies = 0

        def script(request):
            nonlocal replies
            if replies == 2:
                os.kill(os.getpid(), signal.SIGKILL)
            replies += 1
            with open(log, "a") as file:
                file.write(f"{number_of(request)}\n")
            return dogs(request)

        edit(TextStore(path), Editor(ScriptedChat(script), "cirr"), REQUESTS[:7], EDITED_CAPTION, silent)
        os._exit(0)

    ends = []
    while not ends or ends[-1]:
        child = os.fork()
        if child == 0:
            try:
                life()
            finally:
                os._exit(99)
        ends.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
        assert len(ends) < 9
    assert ends == [-signal.SIGKILL] * 3 + [0]
    assert sorted(map(int, log.read_text().split())) == list(range(7))
    nobody = ScriptedChat(lambda request: pytest.fail("asked again"))
    assert edit(TextStore(path), Editor(nobody, "cirr"), REQUESTS[:7], EDITED_CAPTION, silent) == [
        f"{n} dogs" for n in range(7)
    ]
