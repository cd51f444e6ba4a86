"""What one process has written, in the stores of all."""

from collections.abc import Sequence

from accelerate.utils import gather_object

from m2c.encoding import processes

from .store import TextStore
from .text import Text


def share(store: TextStore, written: Sequence[Text]) -> int:
    """Tells the other processes what this one has written and stored; all of them have to take part.

    Returns:
        How many texts the others have written.
    """
    state, from_others = processes(), 0
    for process, texts in enumerate(gather_object([list(written)])):
        if process != state.process_index:
            from_others += len(texts)
            # They are there, unless that process is on a machine with a disk of its own.
            if state.is_local_main_process:
                store.add(texts)
    return from_others
