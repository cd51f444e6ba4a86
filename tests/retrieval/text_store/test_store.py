import os
import re
import signal
import sqlite3
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from m2c.retrieval.text_store import ADDED_OBJECTS, CAPTION, EDITED_CAPTION, Text, TextStore, text_key


BLIP = {"model": "blip", "temperature": 1.0, "prompt": None}


def make_text(number: int, text: str = "a red circle", **fields) -> Text:
    return Text(**{"kind": CAPTION, "generator": BLIP, "source": {"image": "ab", "number": number}, "text": text, **fields})


@pytest.fixture
def path(tmp_path):
    return tmp_path / "cache" / "texts.sqlite"


@pytest.fixture
def store(path):
    return TextStore(path)


def test_what_is_added_is_found_by_key_also_in_another_run(store, path):
    texts = [make_text(number, f"text {number}") for number in range(1200)]
    assert store.add(texts) == 1200
    unknown = make_text(1200)
    found = TextStore(path).find([unknown.key, *(text.key for text in texts)])
    assert found == {text.key: text.text for text in texts}


def test_the_key_is_what_decides_a_text_and_nothing_else():
    text = make_text(3)
    different = [
        make_text(4),
        make_text(3, kind=EDITED_CAPTION),
        make_text(3, generator={**BLIP, "temperature": 0.5}),
        make_text(3, generator={**BLIP, "prompt": ""}),
        make_text(3, source={"image": "ac", "number": 3}),
    ]
    assert len({text.key, *(other.key for other in different)}) == 6
    reordered = make_text(3, "another", generator=dict(reversed(BLIP.items())), source={"number": 3, "image": "ab"})
    assert reordered.key == text.key == text_key(CAPTION, BLIP, {"image": "ab", "number": 3})


def test_a_text_that_is_there_stays(store):
    assert store.add([make_text(0, "first"), make_text(1, "second")]) == 2
    assert store.add([make_text(0, "other"), make_text(2, "third"), make_text(2, "third again")]) == 1
    assert [text.text for text in store.all()] == ["first", "second", "third"]


def test_all_are_listed_as_they_were_added_by_kind_and_model(store):
    texts = [make_text(number) for number in range(1100)]
    edits = [make_text(0, kind=EDITED_CAPTION), make_text(0, kind=ADDED_OBJECTS, generator={"model": "qwen"})]
    store.add([*edits, *texts])
    assert list(store.all()) == [*edits, *texts]
    assert list(store.all(kind=CAPTION)) == texts
    assert list(store.all(model="qwen")) == edits[1:]
    assert list(store.all(EDITED_CAPTION, "blip")) == edits[:1] and not list(store.all(ADDED_OBJECTS, "blip"))


def test_others_write_while_all_are_listed(store, path):
    store.add(make_text(number) for number in range(600))
    listing = store.all()
    next(listing)
    TextStore(path).add([make_text(600)])
    assert len(list(listing)) == 600


any_text = st.text(st.characters(exclude_categories=()), max_size=40)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=any_text, prompt=any_text, modification=any_text)
def test_whatever_a_model_writes_survives(store, text, prompt, modification):
    made = make_text(0, text, generator={"model": "x", "prompt": prompt}, source={"modification": modification, "text": text})
    store.add([made])
    found = store.find([made.key])[made.key]
    found.encode()
    assert found == text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    assert replace(made, text=found) in list(store.all())


def test_half_of_an_emoji_does_no_harm(store):
    halves = [make_text(0, "a \ud83d dog"), make_text(1, "a \ud83d\udc36")]
    store.add(halves)
    assert [text.text for text in store.all()] == ["a \ufffd dog", "a \U0001f436"]


def test_all_or_none(store, path):
    def texts():
        yield make_text(1)
        raise ValueError("row 2 is damaged")

    store.add([make_text(0)])
    with pytest.raises(ValueError, match="row 2"):
        store.add(texts())
    assert list(store.all()) == list(TextStore(path).all()) == [make_text(0)]
    assert store.add([make_text(1)]) == 1


def test_a_full_disk_is_an_error_that_names_the_remedy_and_loses_nothing(store, path):
    """A real one: the operating system refuses to let a file grow."""
    resource = pytest.importorskip("resource")
    few, many = [make_text(0)], [make_text(number, "long " * 100) for number in range(1, 200)]
    store.add(few)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 4096, limits[1]))
    try:
        with pytest.raises(OSError, match=re.escape(f"texts cannot be kept in {path}: ") + ".*kept. Make room.*--cache_dir"):
            store.add(many)
        assert list(store.all()) == few
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert store.add(many) == 199
    assert list(TextStore(path).all()) == [*few, *many]


def test_a_file_that_is_no_database_is_named_with_the_remedy(tmp_path):
    (tmp_path / "texts.sqlite").write_text("<html>" * 100)
    with pytest.raises(OSError, match=r"texts\.sqlite.*move it away.*--cache_dir"):
        TextStore(tmp_path / "texts.sqlite")
    assert (tmp_path / "texts.sqlite").read_text().startswith("<html>")


def test_killed_in_the_middle_of_adding(store, path):
    """Between two texts of one transaction, when part of it may be on disk already."""
    store.add([make_text(0)])
    child = os.fork()
    if child == 0:

        def texts():
            yield from (make_text(number, "long " * 1000) for number in range(1, 1000))
            os.kill(os.getpid(), signal.SIGKILL)

        own = TextStore(path)
        own.database.execute("PRAGMA cache_size = 1")  # so that it writes to the file before it is done
        own.add(texts())
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    assert list(TextStore(path).all()) == [make_text(0)]
    assert TextStore(path).add([make_text(1)]) == 1


def test_several_processes_write_and_one_is_killed(store, path):
    """Their texts overlap; none is lost, doubled or broken."""
    children = []
    for process in range(3):
        children.append(os.fork())
        if children[-1] == 0:
            own = TextStore(path)
            for number in range(process * 20, process * 20 + 100):
                own.add([make_text(number, f"text {number}")])
                if (process, number) == (2, 90):
                    os.kill(os.getpid(), signal.SIGKILL)
            os._exit(0)
    ends = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    assert ends == [0, 0, -signal.SIGKILL]
    assert sorted(text.text for text in store.all()) == sorted(f"text {number}" for number in range(120))
    assert sqlite3.connect(path).execute("PRAGMA integrity_check").fetchall() == [("ok",)]
