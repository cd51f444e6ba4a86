"""Edits on several processes, with a store in the folder that is the argument; the first request never gets a usable reply.

Each process writes there what it asked for, what it got, and what it was told.
"""

import json
import sys
from pathlib import Path

from scripted_chat import ScriptedChat, last_turn

from m2c.encoding import processes
from m2c.retrieval.editing import Editor, EditRequest, edit
from m2c.retrieval.text_store import TextStore


def script(request) -> str:
    number = last_turn(request).split("chair ")[1].split()[0]
    return "I am sorry" if number == "0" else f"{number} dogs"


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    process = processes().process_index
    chat, lines = ScriptedChat(script), []
    requests = [EditRequest((f"a dog on chair {number}",), "more") for number in range(9)]
    store = TextStore(folder / "texts.sqlite")
    texts = edit(store, Editor(chat, "cirr"), requests, "edited caption", lines.append)
    asked = [last_turn(request).split("chair ")[1].split()[0] for request in chat.asked]
    (folder / f"process-{process}.json").write_text(json.dumps({"asked": asked, "texts": texts, "lines": lines}))
