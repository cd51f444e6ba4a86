"""What one process finds out, or fails at, all processes know."""

from collections.abc import Callable
from typing import TypeVar

from accelerate import PartialState
from accelerate.utils import broadcast_object_list, gather_object


T = TypeVar("T")


def on_main(action: Callable[[], T]) -> T:
    """Runs `action` on the main process. What it returns, every process returns; a `ValueError` or `OSError` that it raises,
    every process raises."""
    result = error = None
    if PartialState().is_main_process:
        try:
            result = action()
        except (ValueError, OSError) as raised:
            error = raised
    result, error = broadcast_object_list([result, error])
    if error is not None:
        raise error
    return result


def first_failure(error: Exception | None) -> str | None:
    """The message of the first process that brings an error, on every process; `None` if none does."""
    failures = [message for message in gather_object([None if error is None else str(error)]) if message is not None]
    return failures[0] if failures else None
