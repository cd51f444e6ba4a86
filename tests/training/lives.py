"""Runs the training script and ends it, again and again, in forks of a process that has imported everything already.

A run is a line of JSON on standard input: `folder`, which all that it writes lies below, the `arguments` of the script, how
many `processes` train together, and `deaths`. Each death ends one life of the run: when its last process is about to touch, for
the `nth` time, a path in which `path` is found, or `delay` seconds after that, it gets a `signal`, SIGKILL if none is named.
Then comes a last life without such an end. The answer, a line on standard output, is how the processes of each life ended: exit
codes, or the signals that killed them as negative numbers.
"""

import json
import os
import re
import signal
import socket
import sys
import time
import traceback
from typing import NoReturn

import train_accelerate
from m2c.checkpoints import load_model


EVENTS = {"open", "os.mkdir", "os.remove", "os.rename", "os.rmdir"}


UNCAUGHT = 99  # an exit code that the script never has
LONGEST = 150  # seconds, after which a process that waits for another one in vain is ended


def live(run: dict, death: dict | None) -> list[int]:
    ready, touched = os.pipe()
    port = free_port()
    children = []
    for rank in range(run["processes"]):
        children.append(os.fork())
        if children[-1] == 0:
            signal.alarm(LONGEST)
            os.dup2(2, 1)
            if run["processes"] > 1:
                os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(run["processes"]))
                os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
            if death is not None and rank == run["processes"] - 1:
                sys.addaudithook(Watcher(run["folder"], death, touched))
            else:
                os.close(touched)
            train(run["arguments"])
    os.close(touched)
    if os.read(ready, 1):
        time.sleep(death.get("delay", 0))
        os.kill(children[-1], death.get("signal", signal.SIGKILL))
    os.close(ready)
    return [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]


def train(arguments: list[str]) -> NoReturn:
    try:
        os._exit(train_accelerate.main(arguments))
    except BaseException:
        traceback.print_exc()
        os._exit(UNCAUGHT)


def free_port() -> int:
    with socket.socket() as place:
        place.bind(("127.0.0.1", 0))
        return place.getsockname()[1]


class Watcher:
    """An audit hook that tells of the moment of death, and waits for it if it is to come at once."""

    def __init__(self, folder: str, death: dict, touched: int):
        self.folder, self.death, self.touched = folder, death, touched
        self.count = 0

    def __call__(self, event: str, arguments: tuple) -> None:
        if event not in EVENTS or not str(arguments[0]).startswith(self.folder):
            return
        if re.search(self.death["path"], str(arguments[0])):
            self.count += 1
            if self.count == self.death.get("nth", 1):
                os.write(self.touched, b"!")
                if "delay" not in self.death:
                    signal.pause()


if __name__ == "__main__":
    load_model("scenes")  # transformers prepares what every load of a model needs
    for line in sys.stdin:
        run = json.loads(line)
        print(json.dumps([live(run, death) for death in (*run["deaths"], None)]), flush=True)
