"""Edits of many captions: those in the store, and the others as a language model replies."""

from collections.abc import Callable, Sequence
from dataclasses import asdict

from accelerate.utils import gather_object
from tqdm.auto import tqdm

from m2c.encoding import processes
from m2c.retrieval.chat import Failure, Request
from m2c.retrieval.text_store import Text, TextStore, text_key

from .editor import Editor
from .prompts import EditRequest, digest


TRIES = 4
# First replies in a row that cannot be used until it is clear that there is no use in going on.
HOPELESS = 300
NAMES_SHOWN = 3


def edit(
    store: TextStore, editor: Editor, requests: Sequence[EditRequest], kind: str, say: Callable[[str], None] = print
) -> list[str | None]:
    """Edits captions: what the store has is found there; the rest is asked for, on every process there is, and stored at once.

    A reply that fails or cannot be used is asked for again, four times in all.

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
        with tqdm(total=total, initial=total - len(missing), desc=kind, disable=not work.state.is_main_process) as work.bar:
            work.ask_all(missing)
        known = work.find()
    if work.asked_again:
        tell(f"{kind}: {work.asked_again:,} replies were asked for again")
    if work.reasons:
        tell(f"{kind}: {len(work.reasons):,} of {len(work.requests):,} have no usable reply: {work.named_failures()}")
    return [known.get(key) for key in work.keys]


class _Work:
    def __init__(self, store: TextStore, editor: Editor, requests: Sequence[EditRequest], kind: str):
        self.state = processes()
        self.store, self.editor, self.kind = store, editor, kind
        self.prompt, self.generator = editor.prompt(kind), editor.generator(kind)
        self.keys = [text_key(kind, self.generator, self._source(request)) for request in requests]
        self.requests = dict(zip(self.keys, requests))
        self.reasons: dict[str, str] = {}
        self.asked_again = self.failed_in_a_row = 0

    def find(self) -> dict[str, str]:
        return self.store.find(self.requests)

    def missing(self, known: dict[str, str]) -> list[str]:
        """The keys that the store of any process lacks; those of machines with disks of their own differ."""
        lacking = gather_object([key for key in self.requests if key not in known])
        return list(dict.fromkeys(lacking))

    def ask_all(self, missing: list[str]) -> None:
        """Asks for a share of the keys; then the processes tell each other what there is."""
        share = missing[self.state.process_index :: self.state.num_processes]
        written = []
        for attempt in range(TRIES):
            self.reasons = {}
            self.asked_again += len(share) if attempt else 0
            written += self._ask(share, attempt)
            share = list(self.reasons)
            if not share:
                break
        self._share(written)

    def named_failures(self) -> str:
        first = "; ".join(f"{self._named(key)}: {reason}" for key, reason in list(self.reasons.items())[:NAMES_SHOWN])
        return first + ("; ..." if len(self.reasons) > NAMES_SHOWN else "")

    def _ask(self, keys: list[str], attempt: int) -> list[Text]:
        """The usable replies; why others are not is in `reasons`."""
        written = []
        for position, reply in self.editor.chat.replies(_Requests(self, keys, attempt)):
            key = keys[position]
            text = self.editor.read(reply, self.kind)
            if isinstance(text, Failure):
                self.reasons[key] = text.reason
                # Those that are asked again have failed before: a row of them says little.
                self.failed_in_a_row += attempt == 0
                self._check_hope(key)
                continue
            self.failed_in_a_row = 0
            written.append(Text(self.kind, self.generator, self._source(self.requests[key]), text))
            self.store.add(written[-1:])
            self.bar.update()
        return written

    def _check_hope(self, key: str) -> None:
        if self.failed_in_a_row == HOPELESS:
            raise ValueError(
                f"{HOPELESS} replies in a row cannot be used, the last of them for {self._named(key)}: {self.reasons[key]}. "
                "What was usable is stored; choose another editor"
            )

    def _share(self, written: list[Text]) -> None:
        for process, (texts, reasons, again) in enumerate(gather_object([(written, self.reasons, self.asked_again)])):
            if process == self.state.process_index:
                continue
            self.reasons |= reasons
            self.asked_again += again
            # Already there, unless the process is on another machine with a disk of its own.
            if self.state.is_local_main_process:
                self.store.add(texts)
        self.state.wait_for_everyone()

    def _source(self, request: EditRequest) -> dict:
        return {**asdict(request), "captions": list(request.captions), "messages": digest(self.prompt.messages(request))}

    def _named(self, key: str) -> str:
        return f"the modification {self.requests[key].modification!r}"


class _Requests(Sequence[Request]):
    """The conversations, each made when its turn comes: with their examples they are long, and there may be many."""

    def __init__(self, work: _Work, keys: list[str], attempt: int):
        self.work, self.keys, self.attempt = work, keys, attempt

    def __len__(self) -> int:
        return len(self.keys)

    def __getitem__(self, position: int) -> Request:
        messages = self.work.prompt.messages(self.work.requests[self.keys[position]])
        return self.work.editor.ask(messages, self.attempt)
