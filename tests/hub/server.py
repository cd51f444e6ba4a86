"""The local Hub: a server of the Hub's protocol on the loopback interface, for the official clients.

Like the true one it has two addresses: the Hub itself, and the object storage, which large files go to and come from and which
must never see a token. Clients need `HF_HUB_DISABLE_XET=1`, as the protocol of Xet is not spoken here.
"""

import json
import re
import sys
import threading
from dataclasses import asdict, dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qsl, urlsplit

from . import routes
from .faults import EFFECTS, ConnectionLost, Effect, FaultPlan
from .messages import Answer, HubError, Request, json_answer
from .storage import HubStorage


@dataclass(frozen=True)
class RequestRecord:
    """One line of the log. Of a token it says that there was one; `status` is `None` where there was no answer."""

    method: str
    path: str
    status: int | None
    token_sent: bool

    def __str__(self) -> str:
        return f"{self.method} {self.path}"


class LocalHub(HubStorage):
    """Serves from the first moment on, until it is closed; it is a context manager.

    Clients take its `url` as `HF_ENDPOINT`.

    Attributes:
        faults: what shall go wrong.
        errors: what went wrong in the server itself, or was asked of it that it does not speak.
    """

    def __init__(self):
        self.faults = FaultPlan()
        self.errors: list[BaseException] = []
        self._log: list[RequestRecord] = []
        self._listeners = [_Listener(self), _Listener(self)]
        super().__init__(*(f"http://127.0.0.1:{listener.server_port}" for listener in self._listeners))

    def requests(self, pattern: str = "") -> list[RequestRecord]:
        """All requests so far that a fault on `pattern` would have met, in the order of their answers."""
        return [record for record in self._log if re.search(pattern, str(record))]

    def record(self, record: RequestRecord) -> None:
        self._log.append(record)

    def close(self) -> None:
        for listener in self._listeners:
            listener.shutdown()
            listener.server_close()

    def __enter__(self) -> "LocalHub":
        return self

    def __exit__(self, *_) -> None:
        self.close()


class _Listener(ThreadingHTTPServer):
    """A port of the loopback interface, and the thread that accepts its connections."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, hub: LocalHub):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.hub = hub
        # A short interval, as closing waits for it.
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def handle_error(self, request, client_address) -> None:
        """Clients may go at any time; everything else is an error of this server."""
        error = sys.exception()
        if not isinstance(error, ConnectionError):
            self.hub.errors.append(error)


class _Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1

    def log_message(self, *_) -> None:
        pass

    def handle_request(self) -> None:
        if self.path.startswith("/_control/"):
            self._send(self._control())
            return
        hub = self.server.hub
        try:
            answer = self._answer(hub.faults.next(f"{self.command} {self.path}"))
        except ConnectionLost:
            answer = None
        status = None if answer is None else answer.status
        hub.record(RequestRecord(self.command, self.path, status, "Authorization" in self.headers))
        if answer is None:
            self.close_connection = True
        else:
            self._send(answer)

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = handle_request

    def _answer(self, effect: Effect) -> Answer:
        address = urlsplit(self.path)
        body = self._read_body(effect)
        request = Request(self.command, address.path, dict(parse_qsl(address.query)), self.headers, body)
        return effect.answer(lambda: self._carry_out(request))

    def _read_body(self, effect: Effect) -> bytes:
        length = int(self.headers.get("Content-Length", 0))
        body = effect.receive(self.rfile.read, length)
        if len(body) < length:
            raise ConnectionLost
        return body

    def _carry_out(self, request: Request) -> Answer:
        try:
            return routes.answer(self.server.hub, request)
        except HubError as refusal:
            return refusal.answer
        except Exception as error:
            self.server.hub.errors.append(error)
            return HubError(501 if isinstance(error, NotImplementedError) else 500, repr(error)).answer

    def _control(self) -> Answer:
        """For clients in other processes: what `faults` and `requests` are to those in this one."""
        hub = self.server.hub
        if self.path == "/_control/requests":
            return json_answer([asdict(record) for record in hub.requests()])
        if self.command == "DELETE":
            hub.faults.clear()
        else:
            fault = json.loads(self._read_body(Effect()))
            effect = EFFECTS[fault["effect"].pop("kind")](**fault.pop("effect"))
            hub.faults.add(effect=effect, **fault)
        return Answer()

    def _send(self, answer: Answer) -> None:
        self.send_response(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(answer.body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(answer.body[: answer.cut_after])
        if answer.cut_after is not None:
            self.close_connection = True
