"""An OpenAI-compatible server on the loopback interface, and what can go wrong with one, on demand.

Clients of the Hub's library need `HF_HUB_OFFLINE=0`, as otherwise they ask no server at all.
"""

import contextlib
import json
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass(frozen=True)
class Status:
    """An answer with an error status."""

    status: int
    message: str = "on demand"
    headers: dict[str, str] = field(default_factory=dict)
    code: str | None = None


@dataclass(frozen=True)
class Body:
    """Status 200 with these bytes, of which as many as `missing` never come."""

    content: bytes
    missing: int = 0


@dataclass(frozen=True)
class Slow:
    """The true answer, but so many seconds late."""

    seconds: float


class Drop:
    """The connection ends without an answer."""


Effect = Status | Body | Slow | Drop


@dataclass(frozen=True)
class Call:
    """A request as it arrived, at `time` of the monotonic clock."""

    body: dict
    authorization: str | None
    time: float

    @property
    def text(self) -> str:
        """All that was said in the conversation."""
        return json.dumps(self.body["messages"])


def completion(content: str | None, finish_reason: str = "stop") -> bytes:
    message = {"role": "assistant", "content": content}
    choice = {"index": 0, "message": message, "finish_reason": finish_reason}
    return json.dumps({"id": "1", "object": "chat.completion", "model": "tiny", "choices": [choice]}).encode()


class ChatServer:
    """Serves from the first moment on, until it is closed; it is a context manager.

    Attributes:
        reply: makes of a request's body the text of the reply.
        calls: all requests so far, in the order of their arrival.
        at_once: the number of requests that are under way.
        most_at_once: the highest number of those.
    """

    def __init__(self, reply: Callable[[dict], str] = lambda body: f"reply to {body['messages'][-1]['content']}"):
        self.reply = reply
        self.calls: list[Call] = []
        self.most_at_once = self.at_once = 0
        self._plans: list[tuple[str, list[Effect]]] = []
        self._lock = threading.Lock()
        self._connections: list[socket.socket] = []
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._http.daemon_threads = True
        threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._http.server_port}/v1"

    def plan(self, *effects: Effect, text: str = "", times: int = 1) -> None:
        """To the next requests in which `text` is said these happen, one to each, so many times over."""
        self._plans.append((text, list(effects) * times))

    def connected(self, connection: socket.socket) -> None:
        self._connections.append(connection)

    def answer(self, call: Call) -> Status | Body | Drop:
        with self._lock:
            self.calls.append(call)
            self.at_once += 1
            self.most_at_once = max(self.most_at_once, self.at_once)
            plan = next((effects for text, effects in self._plans if effects and text in call.text), None)
            effect = plan.pop(0) if plan else Slow(0)
        if not isinstance(effect, Slow):
            return effect
        time.sleep(effect.seconds)
        return Body(completion(self.reply(call.body)))

    def answered(self) -> None:
        with self._lock:
            self.at_once -= 1

    def close(self) -> None:
        self._http.shutdown()
        self._http.server_close()
        for connection in self._connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def __enter__(self) -> "ChatServer":
        return self

    def __exit__(self, *_) -> None:
        self.close()


def _handler(server: ChatServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True
        wbufsize = -1

        def setup(self) -> None:
            super().setup()
            server.connected(self.connection)

        def log_message(self, *_) -> None:
            pass

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            answer = server.answer(Call(body, self.headers.get("Authorization"), time.monotonic()))
            # Before it is sent, as the client may go on before this thread does.
            server.answered()
            if self.path != "/v1/chat/completions":
                answer = Status(404, "no such path")
            try:
                self._send(answer)
            except ConnectionError:
                # The client did not wait.
                self.close_connection = True

        def _send(self, answer: Status | Body | Drop) -> None:
            if isinstance(answer, Drop):
                self.close_connection = True
                return
            if isinstance(answer, Status):
                status, headers, missing = answer.status, answer.headers, 0
                content = json.dumps({"error": {"message": answer.message, "code": answer.code}}).encode()
            else:
                status, headers, content, missing = 200, {}, answer.content, answer.missing
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content[: len(content) - missing])
            self.close_connection = bool(missing)

    return Handler
