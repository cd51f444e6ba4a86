"""What can go wrong between a client and the Hub, on demand."""

import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from .messages import Answer, HubError


class ConnectionLost(Exception):
    """The connection ends here, without an answer."""


@dataclass(frozen=True)
class Effect:
    """Wraps the two steps of a request, its arrival and its answer; each kind of fault does one of them differently."""

    def receive(self, read: Callable[[int], bytes], length: int) -> bytes:
        """Reads the body of `length` bytes."""
        return read(length)

    def answer(self, carry_out: Callable[[], Answer]) -> Answer:
        return carry_out()


@dataclass(frozen=True)
class Refuse(Effect):
    """Another status, nothing is carried out. `code` and `message` are those of [`HubError`], `retry_after` is in seconds."""

    status: int
    code: str | None = None
    message: str = "refused on demand"
    retry_after: int | None = None

    def answer(self, carry_out: Callable[[], Answer]) -> Answer:
        headers = {} if self.retry_after is None else {"Retry-After": str(self.retry_after)}
        return HubError(self.status, self.message, self.code, headers).answer


@dataclass(frozen=True)
class Stall(Effect):
    """Silence, then the end of the connection; nothing is carried out."""

    seconds: float

    def answer(self, carry_out: Callable[[], Answer]) -> Answer:
        time.sleep(self.seconds)
        raise ConnectionLost


@dataclass(frozen=True)
class DropUpload(Effect):
    """The connection is lost once so many bytes of the body have arrived; nothing is carried out."""

    after_bytes: int

    def receive(self, read: Callable[[int], bytes], length: int) -> bytes:
        read(min(self.after_bytes, length))
        raise ConnectionLost


@dataclass(frozen=True)
class DropAnswer(Effect):
    """The request is carried out, but the connection is lost before the answer, or after so many bytes of its body."""

    after_bytes: int | None = None

    def answer(self, carry_out: Callable[[], Answer]) -> Answer:
        answer = carry_out()
        if self.after_bytes is None:
            raise ConnectionLost
        answer.cut_after = self.after_bytes
        return answer


@dataclass(frozen=True)
class CorruptUpload(Effect):
    """One bit of the body arrives wrong."""

    def receive(self, read: Callable[[int], bytes], length: int) -> bytes:
        return _with_one_bit_wrong(read(length))


@dataclass(frozen=True)
class CorruptAnswer(Effect):
    """One bit of the answer's body arrives wrong."""

    def answer(self, carry_out: Callable[[], Answer]) -> Answer:
        answer = carry_out()
        answer.body = _with_one_bit_wrong(answer.body)
        return answer


def _with_one_bit_wrong(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


EFFECTS = {effect.__name__: effect for effect in (Refuse, Stall, DropUpload, DropAnswer, CorruptUpload, CorruptAnswer)}


class FaultPlan:
    """The faults to come. Requests come from several threads, hence the lock."""

    def __init__(self):
        self._lock = threading.Lock()
        self._faults: list[_Fault] = []

    def add(self, requests: str, effect: Effect, times: int | None = 1, skip: int = 0) -> None:
        """Plans a fault.

        Args:
            requests: a regular expression, searched in `METHOD /path?query`.
            effect: what happens to them.
            times: to how many of them; `None` for all.
            skip: how many go well before.
        """
        with self._lock:
            self._faults.append(_Fault(re.compile(requests), effect, times, skip))

    def clear(self) -> None:
        with self._lock:
            self._faults.clear()

    def next(self, request: str) -> Effect:
        """The effect on this request: of the first fault that is due, or none."""
        with self._lock:
            for fault in self._faults:
                if fault.requests.search(request) and fault.is_due():
                    return fault.effect
        return Effect()


@dataclass
class _Fault:
    requests: re.Pattern
    effect: Effect
    times: int | None
    skip: int

    def is_due(self) -> bool:
        """Counts a request that matches."""
        if self.skip > 0:
            self.skip -= 1
            return False
        if self.times is None:
            return True
        self.times -= 1
        return self.times >= 0
