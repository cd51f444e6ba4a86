"""Edits of many captions: those in the store, and the others as a language model replies."""

from collections.abc import Callable, Sequence
from dataclasses import asdict

from accelerate.utils import gather_object
from tqdm.auto import tqdm

from m2c.encoding import processes
from m2c.retrieval.chat import Failure, Request
from m2c.retrieval.failures import Failures
from m2c.retrieval.text_store import Text, TextStore, share, text_key

from .editor import Editor
from .prompts import EditRequest, digest


# First replies in a row that cannot be used until it is clear that there is no use in going on.
HOPELESS = 300


def edit(
    store: TextStore, editor: Editor, requests: Sequence[EditRequest], kind: str, say: Callable[[str], None] = print
) -> list[str | None]:
    """Edits captions: what the store has is found there; the rest is asked for, on every process there is, and stored at once.

    A reply that fails or cannot be used is asked for again, as often as the editor allows.

    Args:
        store: where replies are kept.
        editor: asked for what is missing.
        requests: captions and modification texts; equal ones are asked for once.
        kind: `"edited caption"` or `"added objects"`.
        say: prints a line.

    Returns:
        For each request the text, which of added objects may be `""`; `None` where no reply could be used, which `say` is told.

    Raises:
        ValueError: if nothing can be used any more, or the language model cannot be asked; what was replied before is stored.
        OSError: if the store cannot be used, or a server does not answer.
    """
    work = _Work(store, editor, requests, kind)
    tell = say if work.state.is_main_process else lambda _: None
    known = work.find()
    if missing := work.missing(known):
        total = len(work.requests)
        tell(f"{kind}: {total - len(missing):,} of {total:,} are there; {len(missing):,} to ask for")
        with tqdm(total=total, initial=total - len(missing), desc=kind, disable=not work.state.is_main_process) as bar:
            work.ask_all(missing, bar)
        known = work.find()
    if work.failures.asked_again:
        tell(f"{kind}: {work.failures.asked_again:,} replies were asked for again")
    if failed := [key for key in work.requests if key not in known]:
        tell(f"{kind}: {len(failed):,} of {len(work.requests):,} have no usable reply: {work.failures.named(failed)}")
    return [known.get(key) for key in work.keys]


class _Work:
    def __init__(self, store: TextStore, editor: Editor, requests: Sequence[EditRequest], kind: str):
        self.state = processes()
        self.store, self.editor, self.kind = store, editor, kind
        self.prompt, self.generator = editor.prompt(kind), editor.generator(kind)
        self.keys = [text_key(kind, self.generator, self._source(request)) for request in requests]
        self.requests = dict(zip(self.keys, requests))
        self.failures = Failures("replies", HOPELESS, "What was usable is stored; choose another editor")

    def find(self) -> dict[str, str]:
        return self.store.find(self.requests)

    def missing(self, known: dict[str, str]) -> list[str]:
        """The keys that the store of any process lacks; those of machines with disks of their own differ."""
        lacking = gather_object([key for key in self.requests if key not in known])
        return list(dict.fromkeys(lacking))

    def ask_all(self, missing: list[str], bar: tqdm) -> None:
        """Asks for a share of the keys; then the processes tell each other what there is."""
        left = missing[self.state.process_index :: self.state.num_processes]
        written = []
        for attempt in range(self.editor.tries):
            self.failures.asked_again += len(left) if attempt else 0
            usable = self._ask(left, attempt, bar)
            written += usable.values()
            left = [key for key in left if key not in usable]
            if not left:
                break
        bar.update(share(self.store, written))
        self.failures.gather()
        self.state.wait_for_everyone()

    def _ask(self, keys: list[str], attempt: int, bar: tqdm) -> dict[str, Text]:
        """The usable replies; why others are not is among the failures."""
        usable = {}
        for replies in self.editor.chat.replies(_Requests(self, keys, attempt)):
            read = {keys[position]: self.editor.read(reply, self.kind) for position, reply in replies}
            texts = {key: self._text(key, text) for key, text in read.items() if not isinstance(text, Failure)}
            # Before the next replies are asked for, so that none is lost if the process is killed.
            self.store.add(texts.values())
            bar.update(len(texts))
            self._note({key: text for key, text in read.items() if key not in texts}, attempt, bool(texts))
            usable |= texts
        return usable

    def _note(self, failures: dict[str, Failure], attempt: int, others_succeeded: bool) -> None:
        if others_succeeded:
            self.failures.succeeded()
        for key, failure in failures.items():
            self.failures.add(key, f"the modification {self.requests[key].modification!r}", failure.reason, attempt)

    def _text(self, key: str, text: str) -> Text:
        return Text(self.kind, self.generator, self._source(self.requests[key]), text)

    def _source(self, request: EditRequest) -> dict:
        return {**asdict(request), "captions": list(request.captions), "messages": digest(self.prompt.messages(request))}


class _Requests(Sequence[Request]):
    """The conversations, each made when its turn comes: with their examples they are long, and there may be many."""

    def __init__(self, work: _Work, keys: list[str], attempt: int):
        self.work, self.keys, self.attempt = work, keys, attempt

    def __len__(self) -> int:
        return len(self.keys)

    def __getitem__(self, position: int) -> Request:
        messages = self.work.prompt.messages(self.work.requests[self.keys[position]])
        return self.work.editor.ask(messages, self.attempt)
