"""Fills a store of captions and is killed, again and again, in forks of a process that has imported everything already.

A line of JSON on standard input is a life: the `store`, and `runs` side by side, each with a `log` of its calls and the
`digests` of its pictures. The last of them gets SIGKILL when it has made `calls` calls, `delay` seconds later; without `calls`
all live on. The answer, a line on standard output, is how they ended.
"""

import json
import os
import signal
import sys
import time
from pathlib import Path

from PIL import Image
from stub import COUNT, StubCaptioner

from m2c.retrieval.captioning import caption
from m2c.retrieval.text_store import TextStore


LONGEST = 150  # seconds, after which a life that does not get on is ended


def fill(store: str, log: str, digests: list[str]) -> None:
    captioner = StubCaptioner(Path(log), one_by_one=True)
    picture = Image.new("RGB", (1, 1))
    caption(TextStore(Path(store)), captioner, lambda place: picture, digests, COUNT, say=lambda line: None)


def live(life: dict) -> list[int]:
    signal.alarm(LONGEST)
    before = [len(Path(run["log"]).read_bytes().splitlines()) for run in life["runs"]]
    children = []
    for run in life["runs"]:
        children.append(os.fork())
        if children[-1] == 0:
            os.dup2(2, 1)
            fill(life["store"], run["log"], run["digests"])
            os._exit(0)
    if life.get("calls"):
        while len(Path(life["runs"][-1]["log"]).read_bytes().splitlines()) < before[-1] + life["calls"]:
            time.sleep(0.0005)
        time.sleep(life["delay"])
        os.kill(children[-1], signal.SIGKILL)
    return [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]


if __name__ == "__main__":
    for line in sys.stdin:
        print(json.dumps(live(json.loads(line))), flush=True)
