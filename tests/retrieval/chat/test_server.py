import base64
import io
import itertools
import json
import os
import re
import socket
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from types import SimpleNamespace

import huggingface_hub
import pytest
from PIL import Image

from m2c.retrieval.chat import Failure, Request, load_chat
from m2c.retrieval.chat import server as server_module

from ..chat_server import Body, ChatServer, Drop, Slow, Status, completion


TOKEN = "sk-very-secret-0123456789"


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(server_module, "FIRST_WAIT", 0.01)


def ask(text: str, **settings) -> Request:
    return Request([{"role": "user", "content": text}], **settings)


def asks(count: int) -> list[Request]:
    return [ask(f"question {n:03}") for n in range(count)]


def collected(chat, requests) -> dict[int, str | Failure]:
    """Replies by position; that no position comes twice is checked."""
    pairs = list(itertools.chain.from_iterable(chat.replies(requests)))
    replies = dict(pairs)
    assert len(replies) == len(pairs) == len(requests)
    return replies


def right(count: int) -> dict[int, str]:
    return {n: f"reply to question {n:03}" for n in range(count)}


def test_each_request_gets_its_own_reply_and_concurrency_stays_under_its_limit(chat_server):
    chat_server.plan(*(Slow(0.03 * (n % 4)) for n in range(60)))
    chat = load_chat("tiny", chat_server.url, concurrency=5)
    assert collected(chat, asks(60)) == right(60)
    assert len(chat_server.calls) == 60
    assert 1 < chat_server.most_at_once <= 5


@pytest.mark.parametrize(("processes", "expected"), [(1, 8), (3, 2), (20, 1)])
def test_the_limit_is_that_of_all_processes_together(chat_server, monkeypatch, processes, expected):
    monkeypatch.setattr("m2c.retrieval.chat.load.processes", lambda: SimpleNamespace(num_processes=processes))
    assert load_chat("tiny", chat_server.url, concurrency=8).concurrency == expected


def test_iterators_of_one_model_share_the_limit(chat_server):
    chat_server.plan(Slow(0.1), times=12)
    chat = load_chat("tiny", chat_server.url, concurrency=3)
    first, second = chat.replies(asks(6)), chat.replies(asks(6))
    together = [pair for groups in itertools.zip_longest(first, second, fillvalue=[]) for group in groups for pair in group]
    assert len(together) == 12 and dict(together) == right(6)
    assert 1 < chat_server.most_at_once <= 3


def test_what_is_sent(chat_server):
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]},
    ]
    chat = load_chat("org/model", chat_server.url)
    collected(chat, [Request(messages, seed=7, temperature=0.7, max_new_tokens=9), ask("greedy")])
    sampled, greedy = sorted((call.body for call in chat_server.calls), key=lambda body: -body["seed"])
    assert sampled["messages"] == [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "one\ntwo"}]
    assert (sampled["model"], sampled["seed"], sampled["temperature"], sampled["max_tokens"]) == ("org/model", 7, 0.7, 9)
    assert (greedy["seed"], greedy["temperature"], greedy["max_tokens"]) == (0, 0, 64)


@pytest.mark.parametrize(("size", "kind", "tolerance"), [((20, 10), "PNG", 0), ((400, 300), "JPEG", 6)])
def test_pictures_are_sent_as_data_urls(chat_server, size, kind, tolerance):
    picture = Image.linear_gradient("L").resize(size).convert("RGBA")
    content = [{"type": "image", "image": picture}, {"type": "text", "text": "What is this?"}]
    collected(load_chat("tiny", chat_server.url), [Request([{"role": "user", "content": content}])])
    sent, text = chat_server.calls[0].body["messages"][0]["content"]
    assert text == content[1]
    assert sent["type"] == "image_url"
    head, data = sent["image_url"]["url"].split(",")
    assert head == f"data:image/{kind.lower()};base64"
    received = Image.open(io.BytesIO(base64.b64decode(data)))
    assert (received.format, received.mode, received.size) == (kind, "RGB", size)
    differences = zip(received.tobytes(), picture.convert("RGB").tobytes())
    assert max(abs(a - b) for a, b in differences) <= tolerance


PASSING = {
    **{str(status): Status(status) for status in (408, 409, 425, 429, 500, 502, 503, 504, 529)},
    "any time": Status(503, headers={"Retry-After": "soon"}),
    "dropped": Drop(),
    "cut short": Body(completion("half"), missing=20),
    "no JSON": Body(b"<html>busy</html>"),
    "no UTF-8": Body(b"\xff\xfe\xff"),
    "null": Body(b"null"),
    "no choices": Body(b'{"choices": []}'),
    "no message": Body(b'{"choices": [{"finish_reason": "stop"}]}'),
    "choices of another kind": Body(b'{"choices": {"a": 1}}'),
    "no text": Body(b'{"choices": [{"finish_reason": "stop", "message": {"content": {"a": 1}}}]}'),
}


@pytest.mark.parametrize("fault", PASSING.values(), ids=PASSING)
def test_what_may_pass_is_tried_again(chat_server, fault):
    chat_server.plan(fault, times=2)
    assert collected(load_chat("tiny", chat_server.url), [ask("question 000")]) == right(1)
    assert len(chat_server.calls) == 3


def test_a_server_that_does_not_answer_in_time_is_asked_again(chat_server):
    chat_server.plan(Slow(20))
    chat = server_module.ServerChat("tiny", chat_server.url, timeout=2)
    assert collected(chat, asks(1)) == right(1)
    assert len(chat_server.calls) == 2


@pytest.mark.parametrize("fault", PASSING.values(), ids=PASSING)
def test_what_does_not_pass_fails_for_itself_alone(chat_server, fault):
    chat_server.plan(fault, text="question 004", times=1000)
    replies = collected(load_chat("tiny", chat_server.url), asks(10))
    failure = replies.pop(4)
    assert isinstance(failure, Failure) and failure.reason.startswith("no answer in 6 tries, in the last one ")
    assert "\n" not in failure.reason
    assert replies == {n: reply for n, reply in right(10).items() if n != 4}
    assert len(chat_server.calls) == 9 + server_module.TRIES


def test_waits_double(chat_server, monkeypatch):
    monkeypatch.setattr(server_module, "FIRST_WAIT", 0.1)
    chat_server.plan(Status(500), times=4)
    collected(load_chat("tiny", chat_server.url), asks(1))
    waits = [after.time - before.time for before, after in itertools.pairwise(chat_server.calls)]
    assert len(waits) == 4
    # Jitter takes away up to a half.
    assert all(wait >= longest / 2 for wait, longest in zip(waits, (0.1, 0.2, 0.4, 0.8)))


@pytest.mark.parametrize("status", [400, 413, 422])
def test_a_refused_request_is_not_repeated_and_fails_for_itself_alone(chat_server, status):
    chat_server.plan(Status(status, "the conversation\nis too long"), text="question 001", times=1000)
    replies = collected(load_chat("tiny", chat_server.url), asks(4))
    assert replies.pop(1) == Failure(f"refused with status {status}: the conversation is too long")
    assert replies == {n: reply for n, reply in right(4).items() if n != 1}
    assert len(chat_server.calls) == 4


REPLIES = {
    "cut off after 64 tokens": completion("the beginning of", "length"),
    "an empty reply": completion(" \n"),
    "withheld by the server's content filter": completion("half", "content_filter"),
}


@pytest.mark.parametrize(("reason", "body"), [*REPLIES.items(), ("an empty reply", completion(None))])
def test_an_answer_without_a_reply_is_a_failure_and_asked_once(chat_server, reason, body):
    chat_server.plan(Body(body), text="question 002")
    replies = collected(load_chat("tiny", chat_server.url), asks(4))
    assert replies == {**right(4), 2: Failure(reason)}
    assert len(chat_server.calls) == 4


@pytest.mark.parametrize("form", ["seconds", "date"])
def test_all_wait_as_long_as_the_server_asks(chat_server, form):
    # A date has no parts of a second, and time passes until it is sent.
    later = {"seconds": "1", "date": format_datetime(datetime.now(UTC) + timedelta(seconds=3), usegmt=True)}[form]
    chat_server.plan(Status(429, headers={"Retry-After": later}), text="question 000")
    chat_server.plan(Slow(0.6), times=3)
    assert collected(load_chat("tiny", chat_server.url, concurrency=4), asks(20)) == right(20)
    refused = next(call.time for call in chat_server.calls if "question 000" in call.text)
    assert len(chat_server.calls) == 21
    # Those that were under way had begun before.
    assert sum(call.time < refused + 0.9 for call in chat_server.calls) <= 4


def test_a_limited_rate_is_no_failure_as_long_as_others_get_through(chat_server, monkeypatch):
    monkeypatch.setattr(server_module, "TRIES", 3)
    chat_server.plan(Slow(0.01), times=40)
    chat, answer, refused = load_chat("tiny", chat_server.url, concurrency=2), chat_server.answer, []

    def refusing(call):
        if "question 000" not in call.text or len(refused) == 5:
            return answer(call)
        refused.append(call)
        before = chat._answers
        while chat._answers == before:
            time.sleep(0.001)
        return Status(429, headers={"Retry-After": "0.01"})

    monkeypatch.setattr(chat_server, "answer", refusing)
    assert collected(chat, asks(40)) == right(40)
    assert len(refused) == 5, "more often than tries are left for what does not pass"


def test_a_quota_that_is_used_up_ends_early(chat_server):
    chat_server.plan(Status(429, "daily limit", {"Retry-After": "86400"}), times=100)
    with pytest.raises(OSError, match=r"asks to wait 86400 seconds \(status 429: daily limit\)"):
        list(load_chat("tiny", chat_server.url).replies(asks(50)))
    assert len(chat_server.calls) <= 8


SHARED = [
    (Status(401, "bad token"), "OPENAI_API_KEY"),
    (Status(402, "no credits"), "credits are used up"),
    (Status(403, "not yours"), "may not use this model"),
    (Status(404, "model 'tiny' not found"), "check the name of the model"),
    (Status(400, "not supported by any provider", code="model_not_supported"), "check the name of the model"),
]


@pytest.mark.parametrize(("fault", "remedy"), SHARED)
def test_what_all_requests_share_ends_early_and_names_the_remedy(chat_server, fault, remedy):
    chat_server.plan(fault, times=1000)
    with pytest.raises(ValueError, match=remedy) as error:
        list(load_chat("tiny", chat_server.url, concurrency=4).replies(asks(50)))
    assert "'tiny'" in str(error.value) and fault.message in str(error.value)
    assert len(chat_server.calls) <= 4


def test_replies_that_are_under_way_arrive_before_the_end(chat_server):
    for n in range(3):
        chat_server.plan(Slow(1), text=f"question {n:03}")
    chat_server.plan(Status(401), text="question 003")
    replies = []
    with pytest.raises(ValueError, match="status 401"):
        for group in load_chat("tiny", chat_server.url, concurrency=4).replies(asks(30)):
            replies += group
    asked = {n for n in range(30) for call in chat_server.calls if f"question {n:03}" in call.text}
    assert dict(replies) == {n: right(30)[n] for n in asked - {3}} != {}


def test_nobody_listening_ends_at_once(chat_server, monkeypatch):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    monkeypatch.setattr(server_module.ServerChat, "_back_off", lambda *_: 1 / 0)
    with pytest.raises(OSError, match=rf"nobody listens at 127\.0\.0\.1:{port}; start the server"):
        list(load_chat("tiny", f"http://127.0.0.1:{port}/v1").replies(asks(50)))


def test_a_server_that_went_away_ends_early(monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    with ChatServer() as server:
        chat = load_chat("tiny", server.url)
        collected(chat, asks(3))
    replies = []
    with pytest.raises(OSError, match=r"answered none of 2\d requests in a row"):
        for group in chat.replies(asks(500)):
            replies += [reply for _, reply in group]
    assert len(replies) < 30
    assert all(isinstance(reply, Failure) and "lost connection" in reply.reason for reply in replies)


def test_a_server_that_fails_now_and_then_does_not_end_anything(chat_server, monkeypatch):
    monkeypatch.setattr(server_module, "TRIES", 2)
    for n in range(0, 60, 2):
        chat_server.plan(Status(500, "broken"), text=f"question {n:03}", times=100)
    replies = collected(load_chat("tiny", chat_server.url, concurrency=2), asks(60))
    assert sum(isinstance(reply, Failure) for reply in replies.values()) == 30
    assert all(replies[n] == f"reply to question {n:03}" for n in range(1, 60, 2))


def test_closing_the_iterator_starts_no_more_calls(chat_server):
    chat_server.plan(Slow(0.05), times=100)
    replies = load_chat("tiny", chat_server.url, concurrency=2).replies(asks(100))
    next(replies)
    replies.close()
    begun = len(chat_server.calls)
    time.sleep(0.5)
    assert len(chat_server.calls) <= begun + 2, "each thread may have been about to call"


def test_nothing_is_asked_before_the_first_reply_is_wanted(chat_server):
    load_chat("tiny", chat_server.url).replies(asks(5))
    time.sleep(0.1)
    assert not chat_server.calls


INTERRUPTED = """
import os, signal, sys
from m2c.retrieval.chat import Request, load_chat

requests = [Request([{"role": "user", "content": str(n)}]) for n in range(1000)]
try:
    for replies in load_chat("tiny", sys.argv[1], concurrency=3).replies(requests):
        os.kill(os.getpid(), signal.SIGINT)
except KeyboardInterrupt:
    sys.exit(77)
"""


def test_an_interrupt_ends_the_process_though_calls_are_under_way(chat_server):
    chat_server.plan(Slow(0), Slow(60), Slow(60), Slow(60))
    ended = subprocess.run(
        [sys.executable, "-c", INTERRUPTED, chat_server.url],
        env={**os.environ, "HF_HUB_OFFLINE": "0"},
        timeout=240,
    )
    assert ended.returncode == 77
    assert len(chat_server.calls) <= 4
    assert time.monotonic() - chat_server.calls[-1].time < 60


def test_nobody_runs_ahead_of_who_keeps_the_replies(chat_server):
    kept = 0
    for group in load_chat("tiny", chat_server.url, concurrency=3).replies(asks(30)):
        time.sleep(0.02)
        assert len(chat_server.calls) <= kept + 3
        kept += len(group)
    assert kept == 30


def test_requests_are_looked_up_when_their_turn_comes(chat_server):
    calls_before = {}

    class Lazily:
        def __len__(self):
            return 50

        def __getitem__(self, position):
            calls_before[position] = len(chat_server.calls)
            return asks(50)[position]

    assert len(collected(load_chat("tiny", chat_server.url, concurrency=2), Lazily())) == 50
    # The other thread may not have sent yet what it has looked up.
    assert all(calls >= position - 1 for position, calls in calls_before.items())


def test_no_requests_no_calls(chat_server):
    assert list(load_chat("tiny", chat_server.url).replies([])) == []


def test_the_token_is_sent_and_appears_nowhere_else(chat_server, monkeypatch, caplog):
    monkeypatch.setenv("OPENAI_API_KEY", TOKEN + "\n")
    url = chat_server.url.replace("http://", "http://ana:pass%40word@")
    chat = load_chat("tiny", url)
    chat_server.plan(Status(400, f"what is {TOKEN}? what is pass@word? " + "x" * 180 + TOKEN), text="question 000", times=9)
    chat_server.plan(Status(500, f"{TOKEN} broke it"), text="question 001", times=99)
    replies = collected(chat, asks(3))
    assert replies[0].reason.startswith("refused with status 400: what is ***? what is ***? xxx")
    assert replies[1].reason.endswith("status 500: *** broke it")
    chat_server.plan(Status(401, f"Incorrect API key provided: {TOKEN}"), times=99)
    with pytest.raises(ValueError, match=r"provided: \*\*\*") as error:
        list(chat.replies(asks(3)))
    written = "".join((str(error.value), repr(replies), json.dumps(chat.identity), caplog.text))
    for secret in (TOKEN[:10], "pass@word", "pass%40word"):
        assert secret not in written
    assert error.value.__cause__ is None and error.value.__suppress_context__


def test_tokens_go_where_they_belong(chat_server, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_for_hugging_face_only")
    collected(load_chat("tiny", chat_server.url), asks(1))
    monkeypatch.setenv("OPENAI_API_KEY", TOKEN)
    collected(load_chat("tiny", chat_server.url), asks(1))
    assert [call.authorization for call in chat_server.calls] == ["Bearer none", f"Bearer {TOKEN}"]
    endpoint = load_chat("tiny", "https://abc.endpoints.huggingface.cloud/v1")
    assert endpoint.client.token == load_chat("tiny", "together").client.token == "hf_for_hugging_face_only"
    assert load_chat("tiny", "https://nothuggingface.co/v1").client.token == TOKEN
    assert load_chat("tiny", "openai").client.token == TOKEN


def test_the_identity_names_the_model_and_not_where_it_is(chat_server):
    identity = load_chat("org/model", chat_server.url).identity
    assert identity == load_chat("org/model", "http://another-host:1/v1").identity
    assert identity == {"kind": "server", "model": "org/model", "revision": None, "provider": None}
    one, other = (load_chat(f"/data/{run}/final", chat_server.url).identity["model"] for run in ("exp1", "exp2"))
    assert re.fullmatch(r"final-[0-9a-f]{8}", one) and re.fullmatch(r"final-[0-9a-f]{8}", other) and one != other
    assert load_chat("/data/exp1/final", "http://another-host:1/v1").identity["model"] == one


def test_the_provider_is_part_of_the_identity(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_any")
    assert load_chat("org/model", "auto").identity["provider"] == "auto"


def test_a_provider_needs_a_token(monkeypatch):
    monkeypatch.setattr("m2c.retrieval.chat.server_address.get_token", lambda: None)
    with pytest.raises(ValueError, match="the provider auto needs a token; set HF_TOKEN"):
        load_chat("org/model", "auto")
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(ValueError, match="the provider openai needs a token; set OPENAI_API_KEY"):
        load_chat("org/model", "openai")


@pytest.mark.parametrize("server", ["localhost:8000", "ftp://host/v1", "http://", "user:secret@host/v1", ""])
def test_what_is_no_server_is_named(server):
    with pytest.raises(ValueError, match="give its URL") as error:
        load_chat("tiny", server)
    assert "secret" not in str(error.value)


def test_an_unknown_provider_ends_early(chat_server, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_any")
    with pytest.raises(ValueError, match="Provider 'nobody' not supported"):
        list(load_chat("tiny", "nobody").replies(asks(3)))


def test_offline_mode_is_named(chat_server, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ValueError, match="unset it"):
        list(load_chat("tiny", chat_server.url).replies(asks(3)))
