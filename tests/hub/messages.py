"""What the parts of the local Hub hand to each other: a request, its answer, and errors by the names that clients know."""

import json
from dataclasses import dataclass, field
from email.message import Message


@dataclass
class Request:
    """One request.

    Attributes:
        path: as sent, still quoted: a revision such as `refs%2Fpr%2F1` is one part of it.
        query: the last value of each name.
        parameters: the variable parts of the path, unquoted.
        user: whose token came with the request; `None` without a token.
    """

    method: str
    path: str
    query: dict[str, str]
    headers: Message
    body: bytes
    parameters: dict[str, str] = field(default_factory=dict)
    user: str | None = None

    def json(self):
        return json.loads(self.body)


@dataclass
class Answer:
    """What is sent back. With `cut_after`, the connection is closed after that many bytes of the body."""

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    cut_after: int | None = None


def json_answer(content, status: int = 200, headers: dict[str, str] | None = None) -> Answer:
    """What JSON has no form for, as the dates of YAML, becomes a string."""
    return Answer(status, json.dumps(content, default=str).encode(), {"Content-Type": "application/json", **(headers or {})})


class HubError(Exception):
    """A refusal.

    Args:
        status: of HTTP.
        message: for people.
        code: for clients, which make `RepositoryNotFoundError`, `RevisionNotFoundError`, ... of it.
        headers, content: more that the answer carries.
    """

    def __init__(self, status: int, message: str, code: str | None = None, headers: dict | None = None, **content):
        super().__init__(message)
        codes = {} if code is None else {"X-Error-Code": code}
        headers = {"X-Error-Message": message, **codes, **(headers or {})}
        self.answer = json_answer({"error": message, **content}, status, headers)
