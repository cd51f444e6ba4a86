"""What went wrong between a chat server and its client: whether to try again, and what to tell."""

import json
import socket
import ssl
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus


# Timeouts, conflicts, and too many requests; beside these, all that begin with 5.
_PASSING = {HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.CONFLICT, HTTPStatus.TOO_EARLY, HTTPStatus.TOO_MANY_REQUESTS}
# What is wrong with one request is wrong with all of them.
_REMEDIES = {
    HTTPStatus.UNAUTHORIZED: "set OPENAI_API_KEY, or HF_TOKEN for Inference Providers, to a token that it accepts",
    HTTPStatus.PAYMENT_REQUIRED: "its credits are used up; add some, or choose another server",
    HTTPStatus.FORBIDDEN: "the token may not use this model; ask for access, or choose another model",
    HTTPStatus.NOT_FOUND: "check the name of the model as the server knows it, and the address, which mostly ends in /v1",
    HTTPStatus.METHOD_NOT_ALLOWED: "check the address, which mostly ends in /v1",
}
_LONGEST_MESSAGE = 200


class PassingError(Exception):
    """Trying again may help.

    Attributes:
        wait: seconds that the server asks all its clients to wait, or `None`.
    """

    def __init__(self, reason: str, wait: float | None = None):
        super().__init__(reason)
        self.wait = wait


class LastingError(Exception):
    """All requests share it. The message names the remedy."""


class RefusedRequest(Exception):
    """This request will be refused again, others may not be."""


def error_of(response, secrets: Sequence[str]) -> PassingError | LastingError | RefusedRequest:
    """What an HTTP response with an error status means. A server that repeats a secret is not quoted in it."""
    status = response.status_code
    message, code = _message(response.text)
    for secret in secrets:
        message = message.replace(secret, "***")
    message = message[:_LONGEST_MESSAGE]
    reason = f"status {status}: {message}" if message else f"status {status}"
    if status >= 500 or status in _PASSING:
        return PassingError(reason, _seconds(response.headers.get("Retry-After")))
    # Routers answer so with 400.
    remedy = _REMEDIES[HTTPStatus.NOT_FOUND] if "model_not" in code else _REMEDIES.get(status)
    return RefusedRequest(reason) if remedy is None else LastingError(f"{reason}; {remedy}")


def _message(body: str) -> tuple[str, str]:
    """What the server says, in one line, and its code for it. Servers agree on no form."""
    try:
        content = json.loads(body)
    except ValueError:
        content = body
    error = content.get("error", content) if isinstance(content, dict) else content
    fields = error if isinstance(error, dict) else {"message": error}
    message = fields.get("message") or fields.get("detail") or ""
    return " ".join(str(message).split()), str(fields.get("code"))


def _seconds(retry_after: str | None) -> float | None:
    """The header is a number of seconds or a date."""
    if retry_after is None:
        return None
    try:
        return max(0.0, float(retry_after))
    except ValueError:
        pass
    try:
        return max(0.0, (parsedate_to_datetime(retry_after) - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError):
        return None


def nobody_listens(error: BaseException) -> bool:
    """Whether a failed connection was refused, went to an unknown host, or to one that does not speak TLS as it should."""
    return any(isinstance(cause, (ConnectionRefusedError, socket.gaierror, ssl.SSLError)) for cause in _chain(error))


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
