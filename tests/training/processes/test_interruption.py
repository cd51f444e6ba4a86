"""Processes that load images while a run is asked to end."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time

import pytest
import torch
from accelerate import Accelerator
from torch.utils.data import DataLoader

from m2c.training.processes.interruption import Interruption, leave_signals_to_the_run, naming_losses


def load_images(ready) -> None:
    leave_signals_to_the_run(0)
    ready.send(True)
    time.sleep(60)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere nobody can tell who has sent a signal")
def test_workers_obey_the_run_and_nobody_else():
    """A run that ends by an error sends SIGTERM to its workers, and waits for them: one that ignores it would be for ever."""
    context = multiprocessing.get_context("fork")
    ready, far_end = context.Pipe()
    worker = context.Process(target=load_images, args=[far_end], daemon=True)
    worker.start()
    assert ready.recv()
    for signal_name in ("-INT", "-TERM"):
        subprocess.run(["kill", signal_name, str(worker.pid)], check=True)
    worker.join(0.3)
    assert worker.is_alive()
    worker.terminate()
    worker.join(10)
    assert worker.exitcode == 0


def kill_the_worker(seconds: float) -> None:
    """And waits for what comes of it."""
    (worker,) = multiprocessing.active_children()
    os.kill(worker.pid, signal.SIGKILL)
    time.sleep(seconds)


def test_a_worker_that_dies_is_an_error_where_a_batch_is_read_and_nowhere_else():
    """While the run goes on. Before and after, PyTorch raises it at once, wherever that may be."""
    with Interruption(Accelerator(cpu=True)):
        batches = iter(DataLoader(range(9), num_workers=1))
        kill_the_worker(0.2)
        with pytest.raises(RuntimeError, match=r"DataLoader worker .* exited unexpectedly"):
            list(batches)
    batches = iter(DataLoader(range(9), num_workers=1))
    with pytest.raises(RuntimeError, match=r"DataLoader worker .* is killed by signal: Killed"):
        kill_the_worker(10)


@pytest.mark.parametrize(
    "reason", ["DataLoader worker (pid(s) 7) exited unexpectedly", "Pin memory thread exited unexpectedly"]
)
def test_a_dead_worker_is_named_with_what_helps(reason):
    with pytest.raises(ChildProcessError) as raised, naming_losses():
        raise RuntimeError(reason)
    remedy = "most likely memory ran out. Lower --num_workers or --batch_size, and go on with --resume"
    assert str(raised.value) == f"{reason}: {remedy}"


def test_a_full_gpu_is_named_with_what_helps():
    with pytest.raises(ValueError, match=r"^CUDA out of memory\. --chunk_size takes less memory"), naming_losses():
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 has a total capacity of 139 GiB")
