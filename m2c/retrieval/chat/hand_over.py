"""Requests that several threads work on, and their replies on the way to one who keeps them."""

import threading
from collections.abc import Sequence
from queue import Empty, SimpleQueue

from .chat import Failure, Request


# A reply with its position.
Arrival = tuple[int, str | Failure]


class HandOver:
    """Gives out requests and takes replies. A thread that hands one over goes on when a reply, of whichever thread, is kept.

    So there are never more replies that nobody has kept yet than there are threads: if the process is killed, only those are
    lost.
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

    def arrived(self) -> tuple[list[Arrival], Exception | None]:
        """Waits for the next reply; then all that is there, and the first error that all requests share, if there was one."""
        first = self._done.get()
        replies, error = self.arrived_by_now()
        if isinstance(first[1], Exception):
            return replies, first[1]
        return [first, *replies], error

    def arrived_by_now(self) -> tuple[list[Arrival], Exception | None]:
        found = []
        while not self._done.empty():
            found.append(self._done.get())
        errors = (reply for _, reply in found if isinstance(reply, Exception))
        return [pair for pair in found if not isinstance(pair[1], Exception)], next(errors, None)

    def kept(self, count: int) -> None:
        if count:
            self._kept.release(count)

    def end(self, threads: int) -> None:
        """Gives out no more, and lets go as many threads as there are."""
        self.stop.set()
        self.kept(threads)
