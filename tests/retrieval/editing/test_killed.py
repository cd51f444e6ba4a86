"""A run that asks a real server and is killed."""

import os
import signal
import subprocess
import sys
import time

import pytest

from m2c.retrieval.text_store import TextStore

from ..chat_server import ChatServer, Slow


REQUESTS, CONCURRENCY = 300, 4
LIFE = f"""
import sys
from pathlib import Path
from m2c.retrieval.chat import load_chat
from m2c.retrieval.editing import Editor, EditRequest, edit
from m2c.retrieval.text_store import EDITED_CAPTION, TextStore

requests = [EditRequest((f"a dog on chair {{n}}",), "more dogs") for n in range({REQUESTS})]
editor = Editor(load_chat("tiny", sys.argv[1], concurrency={CONCURRENCY}), "general")
edit(TextStore(Path(sys.argv[2])), editor, requests, EDITED_CAPTION)
"""


def wait_for_what_was_sent(server: ChatServer) -> None:
    before = -1
    while len(server.calls) > before or server.at_once:
        before = len(server.calls)
        time.sleep(0.5)


@pytest.mark.slow
def test_killed_and_resumed_no_finished_call_is_repeated(chat_server, tmp_path):
    """But for those that were under way, one of each thread at most."""
    chat_server.reply = lambda body: "dogs on a chair"
    chat_server.plan(Slow(0.02), times=2 * REQUESTS)
    store = tmp_path / "texts.sqlite"
    command, environment = [sys.executable, "-c", LIFE, chat_server.url, str(store)], {**os.environ, "HF_HUB_OFFLINE": "0"}
    lost = 0
    for calls in (40, 110, 180):
        with subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as life:
            while len(chat_server.calls) < calls:
                assert life.poll() is None
                time.sleep(0.001)
            life.kill()
        assert life.returncode == -signal.SIGKILL
        wait_for_what_was_sent(chat_server)
        before, lost = lost, len(chat_server.calls) - len(list(TextStore(store).all()))
        assert 0 <= lost - before <= CONCURRENCY
    subprocess.run(command, env=environment, check=True, capture_output=True, timeout=240)
    assert len(list(TextStore(store).all())) == REQUESTS
    assert len(chat_server.calls) == REQUESTS + lost
