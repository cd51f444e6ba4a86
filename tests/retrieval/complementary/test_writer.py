import pytest

from m2c.retrieval.complementary import Writer
from m2c.retrieval.editing import Editor


CAPTIONS = [["a cat", "one cat"], ["a dog", "one dog"]]


@pytest.fixture
def make_writer(captioner, make_chat, store):
    def make(script=None, benchmark="scenes", **fields) -> Writer:
        return Writer(captioner, Editor(make_chat(script), benchmark), store, say=lambda _: None, **fields)

    return make


def test_each_caption_is_edited_or_all_of_them_together(make_writer):
    each, joined = make_writer(form="each"), make_writer(form="joined")
    assert [len(own) for own in each.edits(CAPTIONS, ["is red", "is big"]).edited] == [2, 2]
    assert [len(own) for own in joined.edits(CAPTIONS, ["is red", "is big"]).edited] == [1, 1]
    edits = [text for text in each.editor.chat.asked if "cat" in text]
    assert sum("a cat" in text and "one cat" in text for text in edits) == 1, "the objects added are asked for once"


def test_a_blank_modification_asks_no_language_model(make_writer):
    writer = make_writer()
    edits = writer.edits(CAPTIONS, ["", " "])
    assert (edits.edited, edits.added, writer.editor.chat.asked) == (CAPTIONS, ["", ""], [])


def test_new_objects_are_asked_for_if_they_are_wanted(make_writer):
    writer = make_writer(objects=False)
    edits = writer.edits(CAPTIONS, ["is red", "is big"])
    assert edits.added == ["", ""] and len(writer.editor.chat.asked) == 4
    assert make_writer().edits(CAPTIONS, ["is red", "is big"]).edited == edits.edited


def test_replies_that_cannot_be_used_are_counted_and_never_replaced(make_writer):
    writer = make_writer(lambda text: None if "one cat" in text else "a text")
    edits = writer.edits(CAPTIONS, ["is red", "is big"])
    assert edits.edited == [["a text"], ["a text", "a text"]]
    assert edits.failed == {"edited caption": 1, "added objects": 1}
    assert edits.added == ["", "a text"]


def test_a_query_without_any_reply_ends_it_and_the_others_are_stored(make_writer):
    writer = make_writer(lambda text: None if "cat" in text else "a text")
    with pytest.raises(ValueError, match=r"1 of 2 queries have no usable reply .* for the modification 'is red'"):
        writer.edits(CAPTIONS, ["is red", "is big"])
    again = make_writer()
    again.edits(CAPTIONS, ["is red", "is big"])
    assert again.editor.chat.asked and all("cat" in text for text in again.editor.chat.asked)


def test_more_captions_are_asked_for_beside_those_that_are_there(make_writer, captioner, picture):
    pictures, digests = [picture(0), picture(1)], ["first", "second"]
    few = make_writer(count=2).captions(pictures.__getitem__, digests)
    captioner.asked.clear()
    more = make_writer(count=3).captions(pictures.__getitem__, digests)
    assert [own[:2] for own in more] == few
    assert captioner.asked == [("first", 2), ("second", 2)]


@pytest.mark.parametrize(
    ("field", "value", "message"), [("form", "both", "each, joined"), ("count", 0, "at least one caption")]
)
def test_wrong_settings_are_named(make_writer, field, value, message):
    with pytest.raises(ValueError, match=message):
        make_writer(**{field: value})
