"""What goes wrong between a machine and the Hub, in words that say what to do."""

from collections.abc import Iterator
from contextlib import contextmanager
from json import JSONDecodeError

from huggingface_hub.errors import HTTPError, LocalTokenNotFoundError, OfflineModeIsEnabled

from .secrets import without_secrets


# What the client raises, whatever HTTP library its release uses.
FAILURES = (HTTPError, LocalTokenNotFoundError, OfflineModeIsEnabled, RuntimeError, ValueError)
OVERTAKEN = "something else was published there at the same time. Look at it, and run the same command again"
LONGEST = 300


@contextmanager
def failing_as(title: str, repo_id: str, again: str) -> Iterator[None]:
    """Failures of the client become an `OSError` in words of our own: what failed, why, and the remedy."""
    try:
        yield
    except FAILURES as error:
        raise OSError(f"{title}: {explain(error, repo_id, again)}") from None


@contextmanager
def reading_from_hub() -> Iterator[None]:
    """A connection that is lost in the middle of an answer is an error of the HTTP library alone; here it becomes an
    `OSError`. All else goes through: it may come from a file, and says what is wrong with it."""
    try:
        yield
    except HTTPError as error:
        if isinstance(error, OSError):
            raise
        cause = _cause(error, None)
        raise OSError(f"what is needed from the Hub did not arrive ({cause}). Run the same command again") from None


def status_of(error: Exception) -> int | None:
    """The status of HTTP that the Hub or its storage answered with, `None` where there was no answer."""
    # A file that could not be uploaded has the reason as its cause.
    for failure in (error, error.__cause__):
        response = getattr(failure, "response", None)
        if response is not None:
            return response.status_code
    return None


def explain(error: Exception, repo_id: str, again: str) -> str:
    """Why it failed, and the remedy, on one line without secrets.

    Args:
        error: one of `FAILURES`.
        repo_id: what the request was about.
        again: the remedy where nothing is wrong on this side.
    """
    status = status_of(error)
    if isinstance(error, OfflineModeIsEnabled):
        return "HF_HUB_OFFLINE is set. Unset it"
    if isinstance(error, LocalTokenNotFoundError):
        return "there is no token. Log in with `hf auth login`, or set HF_TOKEN"
    if isinstance(error, RuntimeError):
        return f"{_words(str(error))} ({_cause(error, status)}). {again}"
    if isinstance(error, ValueError) and not isinstance(error, (HTTPError, JSONDecodeError)):
        return f"the Hub refuses what was sent. {_words(str(error))}"
    said = _words(getattr(error, "server_message", None) or "no reason given")
    if status == 401:
        return "the Hub does not know you. Log in with `hf auth login`, or set HF_TOKEN to a token that is valid"
    if status == 403:
        return f"your token may not do that ({said}). Use one that may write to {repo_id}, or publish under your own name"
    if status == 404:
        return "there is no such repository, user or organisation, or your token may not see it. Check the name"
    if status == 412:
        return OVERTAKEN
    if status == 429:
        return f"too much came from here, and the Hub asks to wait. {again}, later"
    if status is not None and status < 500:
        return f"the Hub refuses it with status {status} ({said})"
    return f"the Hub failed or could not be reached ({_cause(error, status)}). {again}"


def _cause(error: Exception, status: int | None) -> str:
    return type(error.__cause__ or error).__name__ if status is None else f"status {status}"


def _words(text: str) -> str:
    return " ".join(without_secrets(text).split())[:LONGEST]
