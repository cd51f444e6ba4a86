"""A chat model whose replies a test decides."""

from collections.abc import Callable, Iterator, Sequence

from m2c.retrieval.chat import Failure, Request


class ScriptedChat:
    """Replies what `script` says, last request first, and keeps what it was asked."""

    def __init__(self, script: Callable[[Request], str | Failure], name: str = "scripted"):
        self.script = script
        self.identity = {"kind": "transformers", "model": name, "revision": None}
        self.asked: list[Request] = []

    def replies(self, requests: Sequence[Request]) -> Iterator[list[tuple[int, str | Failure]]]:
        for position in reversed(range(len(requests))):
            self.asked.append(requests[position])
            yield [(position, self.script(requests[position]))]


def last_turn(request: Request) -> str:
    return request.messages[-1]["content"]
