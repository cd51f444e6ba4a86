"""Processes that load images while a run is asked to end."""

import multiprocessing
import subprocess
import sys
import time

import pytest
import torch

from m2c.training.processes.interruption import leave_signals_to_the_run, naming_losses


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


def test_a_full_gpu_is_named_with_what_helps():
    with pytest.raises(ValueError, match=r"^CUDA out of memory\. --chunk_size takes less memory"), naming_losses():
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 has a total capacity of 139 GiB")
