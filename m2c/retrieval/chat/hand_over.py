"""Requests that several threads work on, and their replies on the way to one who keeps them."""

import threading
from collections.abc import Iterator, Sequence
from queue import Empty, SimpleQueue

from .chat import Failure, Request


# A reply with its position; in its place, an error that all requests share.
Arrival = tuple[int, str | Failure | Exception]


class HandOver:
    """Gives out requests, and takes replies; a thread gets its next request when as many are kept as it has handed over.

    So if the process is killed, no more is lost than one reply of each thread.
    """

    def __init__(self, requests: Sequence[Request]):
        self.requests, self.stop = requests, threading.Event()
        self._todo, self._done, self._kept = SimpleQueue(), SimpleQueue(), threading.Semaphore(0)
        for position in range(len(requests)):
            self._todo.put(position)

    def next(self) -> int | None:
        """The position whose turn it is, if there is one and nothing has ended it."""
        try:
            return None if self.stop.is_set() else self._todo.get_nowait()
        except Empty:
            return None

    def hand_over(self, position: int, reply: str | Failure | Exception) -> None:
        """Returns when a reply, of whichever thread, has been kept since."""
        self._done.put((position, reply))
        self._kept.acquire()

    def arrived(self) -> list[Arrival]:
        """All that is there, and at least one."""
        return [self._done.get(), *self.arrived_by_now()]

    def arrived_by_now(self) -> list[Arrival]:
        found = []
        while not self._done.empty():
            found.append(self._done.get())
        return found

    def kept(self, count: int) -> None:
        if count:
            self._kept.release(count)

    def end(self, threads: int) -> None:
        """Gives out no more, and lets go as many threads as there are."""
        self.stop.set()
        self.kept(threads)


def before_the_end(arrivals: Sequence[Arrival]) -> Iterator[list[tuple[int, str | Failure]]]:
    """The replies among them; then raises the first error."""
    errors = [reply for _, reply in arrivals if isinstance(reply, Exception)]
    yield [(position, reply) for position, reply in arrivals if reply not in errors]
    raise errors[0]
