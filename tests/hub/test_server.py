"""The server itself, without the official clients."""

import base64
import json
import socket
import time
import urllib.request
from urllib.error import HTTPError, URLError

import pytest

from .faults import Effect, FaultPlan, Refuse, Stall
from .server import LocalHub


def test_faults_are_counted():
    plan = FaultPlan()
    plan.add("PUT", Refuse(500), times=1, skip=1)
    plan.add("PUT .*weights", Refuse(503), times=2)
    plan.add("GET", Refuse(429), times=None)
    assert [plan.next(f"PUT /{name}") for name in ("weights", "card", "weights", "weights")] == [
        *(Refuse(503), Refuse(500), Refuse(503), Effect())
    ]
    assert [plan.next("GET /") for _ in range(9)] == 9 * [Refuse(429)]
    plan.clear()
    assert plan.next("GET /") == Effect()


def test_half_a_commit_is_none(hub, token):
    """A client dies after a line that is complete in itself."""
    hub.publish("ana/m2c", {})
    lines = [{"key": "header", "value": {"summary": "half"}}, {"key": "file", "value": {"path": "a.txt", "content": ""}}]
    body = "".join(f"{json.dumps(line)}\n" for line in lines).encode()
    head = f"POST /api/models/ana/m2c/commit/main HTTP/1.1\r\nAuthorization: Bearer {token}\r\n"
    with socket.create_connection(("127.0.0.1", int(hub.url.rsplit(":", 1)[1]))) as connection:
        connection.sendall(f"{head}Content-Length: {len(body) + 10}\r\n\r\n".encode() + body)
        connection.shutdown(socket.SHUT_WR)
        assert connection.recv(1) == b""
    assert set(hub.repository("ana/m2c").files()) == {".gitattributes"}
    assert [record.status for record in hub.requests("/commit/")] == [None]


def commit(hub, token: str, *operations: dict) -> None:
    """As a client that checks nothing before."""
    lines = [{"key": "header", "value": {"summary": "direct"}}, *operations]
    body = "".join(f"{json.dumps(line)}\n" for line in lines).encode()
    address, headers = f"{hub.url}/api/models/ana/m2c/commit/main", {"Authorization": f"Bearer {token}"}
    urllib.request.urlopen(urllib.request.Request(address, body, headers, method="POST")).close()


@pytest.mark.parametrize(
    "wrong",
    [
        {"key": "lfsFile", "value": {"path": "model.safetensors", "oid": "0" * 64, "size": 3}},
        {"key": "file", "value": {"path": "README.md", "content": base64.b64encode(b"---\nlicense: mine\n---\n").decode()}},
    ],
)
def test_one_wrong_operation_and_none_is_carried_out(hub, token, wrong):
    hub.publish("ana/m2c", {})
    good = {"key": "file", "value": {"path": "a.txt", "content": ""}}
    with pytest.raises(HTTPError, match="400"):
        commit(hub, token, good, wrong)
    assert set(hub.repository("ana/m2c").files()) == {".gitattributes"}
    commit(hub, token, good)
    assert set(hub.repository("ana/m2c").files()) == {".gitattributes", "a.txt"}


def test_what_it_does_not_speak_is_an_error_of_the_test():
    with LocalHub() as hub:
        with pytest.raises(HTTPError, match="501"):
            urllib.request.urlopen(f"{hub.url}/api/unheard-of")
        assert "does not speak GET /api/unheard-of" in str(hub.errors[0])


def test_closing_waits_for_nobody():
    with LocalHub() as hub:
        hub.faults.add("", Stall(seconds=30))
        connection = socket.create_connection(("127.0.0.1", int(hub.url.rsplit(":", 1)[1])))
        connection.sendall(b"GET / HTTP/1.1\r\n\r\n")
        time.sleep(0.2)  # until the request is under way
        start = time.monotonic()
    assert time.monotonic() - start < 5
    connection.close()
    with pytest.raises(URLError):
        urllib.request.urlopen(f"{hub.url}/api/whoami-v2")
