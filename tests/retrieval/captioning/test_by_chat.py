import base64
import io
import json
from collections.abc import Iterator, Sequence

import pytest
from PIL import Image

from m2c.retrieval.captioning import CaptionSettings, caption, load_captioner
from m2c.retrieval.captioning.by_chat import PROMPT, CaptionsByChat
from m2c.retrieval.chat import Failure, Request, server

from ..chat_server import Body, Drop, Slow, Status, completion


class EchoingChat:
    """Replies with what it is asked, last request first; `fails` says which seeds fail."""

    def __init__(self, fails=lambda seed: False):
        self.identity = {"kind": "server", "model": "echo", "revision": None}
        self.fails, self.requests = fails, []

    def replies(self, requests: Sequence[Request]) -> Iterator[list[tuple[int, str | Failure]]]:
        for position in reversed(range(len(requests))):
            request = requests[position]
            self.requests.append(request)
            image, text = request.messages[0]["content"]
            reply = f"  {image['image'].getpixel((0, 0))}\n {text['text']} {request.seed}\n"
            yield [(position, Failure("refused") if self.fails(request.seed) else reply)]


@pytest.fixture
def pictures(picture):
    return [picture(seed) for seed in range(3)]


def replies(captioner, pictures, digests, numbers, attempt=0) -> dict:
    groups = captioner.captions(pictures, digests, numbers, attempt)
    return {(digests[row], number): reply for group in groups for row, number, reply in group}


def test_each_caption_is_a_request_of_its_own(pictures):
    chat = EchoingChat()
    settings = CaptionSettings(temperature=0.7, prompt="What?", max_new_tokens=11)
    found = replies(CaptionsByChat(chat, settings, 4), pictures, "abc", range(5))
    assert len(found) == len(chat.requests) == len({request.seed for request in chat.requests}) == 15
    assert {(request.temperature, request.max_new_tokens) for request in chat.requests} == {(0.7, 11)}
    for (digest, _), text in found.items():
        pixel = pictures["abc".index(digest)].getpixel((0, 0))
        assert text.startswith(f"{pixel} What? ") and "\n" not in text


def test_a_request_depends_on_picture_and_number_alone(pictures):
    captioner = CaptionsByChat(EchoingChat(), CaptionSettings(), 4)
    together = replies(captioner, pictures, "abc", range(5))
    assert replies(captioner, pictures[1:2], "b", [4, 2]) == {key: together[key] for key in (("b", 4), ("b", 2))}
    other = CaptionsByChat(EchoingChat(), CaptionSettings(seed=1), 4)
    again = replies(captioner, pictures, "abc", range(5), attempt=1)
    assert all(
        len({found[key] for found in (together, again, replies(other, pictures, "abc", range(5)))}) == 3 for key in together
    )


def test_each_reply_is_there_at_once(pictures):
    captioner = CaptionsByChat(EchoingChat(), CaptionSettings(), 4)
    groups = captioner.captions(pictures, "abc", range(5))
    assert len(next(groups)) == 1 and len(captioner.chat.requests) == 1


def test_the_identity_holds_the_prompt_also_where_it_is_our_own():
    identity = CaptionsByChat(EchoingChat(), CaptionSettings(), 4).identity
    assert identity == {
        "kind": "server",
        "model": "echo",
        "revision": None,
        "temperature": 1.0,
        "top_p": None,
        "seed": 0,
        "prompt": PROMPT,
        "max_new_tokens": 96,
    }
    assert CaptionsByChat(EchoingChat(), CaptionSettings(prompt="What?"), 4).identity == {**identity, "prompt": "What?"}
    with pytest.raises(ValueError, match="top_p"):
        CaptionsByChat(EchoingChat(), CaptionSettings(top_p=0.9), 4)


def test_failures_are_asked_again_with_other_seeds(store, pictures):
    chat = EchoingChat(fails=lambda seed: seed % 3 == 0)
    said = []
    captions = caption(
        store, CaptionsByChat(chat, CaptionSettings(), 2), pictures.__getitem__, list("abc"), 12, say=said.append
    )
    failed = sum(request.seed % 3 == 0 for request in chat.requests)
    assert failed > 3 and sum(map(len, captions)) == len(chat.requests) - failed >= 33
    assert len({request.seed for request in chat.requests}) == len(chat.requests)
    assert len(list(store.all())) == sum(map(len, captions))


def test_a_model_with_a_chat_template_is_asked_in_conversations(seeing_path, pictures):
    captioner = load_captioner(seeing_path, CaptionSettings(prompt="What is it?"), batch_size=3)
    assert isinstance(captioner, CaptionsByChat) and captioner.identity["model"] == "tiny-seeing-chat"
    together = replies(captioner, pictures, "abc", range(6))
    texts = [reply for reply in together.values() if isinstance(reply, str)]
    assert len(texts) == len(set(texts)) > 9
    alone = {}
    for digest, picture in zip("abc", pictures):
        alone |= replies(captioner, [picture], digest, range(6))
    assert alone == together


def test_over_a_server_that_fails_now_and_then_nothing_is_lost_or_doubled(chat_server, store, pictures, monkeypatch):
    monkeypatch.setattr(server, "FIRST_WAIT", 0.01)
    chat_server.reply = lambda body: f"a caption drawn with {body['seed']}"
    faults = [Status(500), Slow(0.05), Drop(), Body(b"<html>"), Status(429, headers={"Retry-After": "0"})]
    chat_server.plan(*faults, Body(completion("")), Body(completion("cut off", "length")), times=3)
    captioner = load_captioner("tiny", CaptionSettings(temperature=0.5), chat_server.url, batch_size=2, concurrency=4)
    said = []
    captions = caption(store, captioner, pictures.__getitem__, list("abc"), 15, say=said.append)
    assert [len(own) for own in captions] == [15] * 3 and len({text for own in captions for text in own}) == 45
    assert len(list(store.all())) == 45 and said[-1] == "captions: 6 were asked for again"
    assert chat_server.most_at_once <= 4
    finished = len(chat_server.calls)
    assert caption(store, captioner, pictures.__getitem__, list("abc"), 15, say=said.append) == captions
    assert len(chat_server.calls) == finished
    contents = {json.dumps(call.body["messages"][0]["content"]) for call in chat_server.calls}
    seen = [json.loads(content)[0]["image_url"]["url"].removeprefix("data:image/png;base64,") for content in contents]
    shown = {Image.open(io.BytesIO(base64.b64decode(data))).tobytes() for data in seen}
    assert shown == {picture.tobytes() for picture in pictures} and len(seen) == 3
    assert {call.body["temperature"] for call in chat_server.calls} == {0.5}
