"""A run that is asked to end does so between two steps, with a checkpoint, or after the last one, with the model."""

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist
from accelerate import Accelerator
from torch.utils.data._utils.signal_handling import _set_SIGCHLD_handler


SIGNALS = (signal.SIGINT, signal.SIGTERM)
# A cluster may signal every process of a job, and a launcher then passes its own signal on: the same request twice.
SAME_REQUEST_SECONDS = 2.0


class Interrupted(KeyboardInterrupt):
    """A run has ended on request, after writing a checkpoint or, after the last step, the model.

    Attributes:
        exit_code: how a shell reports a process that ended by this signal, 143 for SIGTERM and 130 for Ctrl-C.
    """

    def __init__(self, signal_number: int, message: str):
        super().__init__(message)
        self.exit_code = 128 + signal_number


class Interruption:
    """A context in which SIGTERM and Ctrl-C are noted instead of obeyed. Asked again, the process ends at once.

    A process that loads images and dies is not noticed before the run asks it for a batch: at any other moment PyTorch's error
    would tear a step or a checkpoint apart.

    Args:
        accelerator: of the run; its processes end together, whichever of them was asked.
    """

    def __init__(self, accelerator: Accelerator):
        self.accelerator = accelerator
        self.noted, self.since = 0, 0.0
        self.handlers = {}

    def __enter__(self) -> "Interruption":
        if threading.current_thread() is threading.main_thread():  # elsewhere Python lets nobody handle signals
            self.handlers = {number: signal.signal(number, self._note) for number in SIGNALS}
            _set_SIGCHLD_handler()  # which PyTorch does once, and otherwise would with the run's first worker
            self.handlers[signal.SIGCHLD] = signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        return self

    def __exit__(self, error_type: type | None, *_) -> None:
        self._restore_handlers()
        if self.noted and error_type is None:
            raise Interrupted(self.noted, "ended after the last step, with the model saved")

    def agreed(self, has_failed: bool) -> tuple[int, bool]:
        """The number of the signal that any of the processes got, 0 if none did; and whether any of them has failed. To be
        asked by all, after every step."""
        if self.accelerator.num_processes == 1:
            return self.noted, has_failed
        found = torch.tensor([self.noted, has_failed], device=self.accelerator.device)
        dist.all_reduce(found, dist.ReduceOp.MAX)
        signal_number, has_failed = found.tolist()
        return signal_number, bool(has_failed)

    def _note(self, number: int, _) -> None:
        now = time.monotonic()
        if not self.noted:
            self.noted, self.since = number, now
            if self.accelerator.is_main_process:
                # Not `print`, which may just be at work.
                os.write(2, b"\nending as soon as what was trained is saved; once more to end at once\n")
        elif now - self.since > SAME_REQUEST_SECONDS:
            self._restore_handlers()
            signal.raise_signal(number)

    def _restore_handlers(self) -> None:
        for number, handler in self.handlers.items():
            signal.signal(number, handler)


def leave_signals_to_the_run(worker: int) -> None:
    """For processes that load images: what asks the run to end reaches them, too, and the last step still needs them.

    The run itself they obey: at its exit it sends SIGTERM to those that are left, and waits for them.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if sys.platform == "linux":  # elsewhere nobody can tell who has sent a signal
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(target=_obey, args=[os.getppid()], daemon=True).start()


def _obey(process: int) -> None:
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != process:
        pass
    os._exit(0)


@contextmanager
def naming_losses() -> Iterator[None]:
    """Says in one line what to do when another process of the run has been killed, or a GPU's memory is full.

    PyTorch's own error may come up wherever this process just is.

    Raises:
        ChildProcessError: if it was one that loads images.
        ConnectionError: if it was one that trains.
        ValueError: if it is the memory of this process's device that ended.
    """
    try:
        yield
    except torch.OutOfMemoryError as error:
        reason = str(error).partition(". ")[0]
        raise ValueError(
            f"{reason}. --chunk_size takes less memory for the same steps, and so does --gradient_checkpointing; a smaller "
            "--batch_size is another run"
        ) from error
    except RuntimeError as error:
        reason = str(error).partition("\n")[0].strip().removesuffix(".")
        # Where batches are for a GPU, a thread takes them from the workers, and may die of the death of one.
        if reason.startswith(("DataLoader worker", "Pin memory thread")):
            raise ChildProcessError(
                f"{reason}: most likely memory ran out. Lower --num_workers or --batch_size, and go on with --resume"
            ) from error
        if isinstance(error, dist.DistError) or "/gloo/" in reason:
            raise ConnectionError(
                f"the processes lost each other, most likely as one of them has ended; go on with --resume ({reason})"
            ) from error
        raise
