"""Captions of many pictures: those in the store, and the others as they are written."""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from itertools import chain

from accelerate.utils import gather_object
from PIL.Image import Image
from tqdm.auto import tqdm

from m2c.encoding import processes
from m2c.retrieval.failures import Failures
from m2c.retrieval.text_store import CAPTION, TextStore, share, text_key

from .asking import Asking, source_of
from .captioner import Captioner


# Digests of pictures that lack the same captions, and the numbers of those.
Batch = tuple[list[str], tuple[int, ...]]


def caption(
    store: TextStore,
    captioner: Captioner,
    pictures: Callable[[int], Image],
    digests: Sequence[str],
    count: int,
    names: Sequence[str] | None = None,
    say: Callable[[str], None] = print,
) -> list[list[str]]:
    """Captions of pictures, from the store where it has them; others are written, on every process there is, and stored.

    What fails is asked for again, up to three times in all. A run that is killed loses what it is just writing.

    Args:
        store: where they are kept.
        captioner: writes what is missing.
        pictures: gives the picture at a position; called for pictures of which a caption is missing.
        digests: of the pictures, by which captions are found; equal ones are captioned once.
        count: captions of each picture.
        names: of the pictures, for messages; their digests by default.
        say: prints a line.

    Returns:
        For each picture its captions, by number; less than `count` where some failed, of which `say` is told.

    Raises:
        ValueError: if a picture has no caption, because it cannot be read or all of its captions failed. That comes at the
            end, when all others are stored; but if nothing succeeds any more, at once.
        OSError: if the store cannot be used.
    """
    tell = say if processes().is_main_process else lambda _: None
    position = {digest: place for place, digest in reversed(list(enumerate(digests)))}
    asking = Asking(captioner, lambda digest: pictures(position[digest]), lambda digest: (names or digests)[position[digest]])
    keys = {
        digest: [text_key(CAPTION, captioner.identity, source_of(digest, number)) for number in range(count)]
        for digest in dict.fromkeys(digests)
    }
    known = store.find(chain.from_iterable(keys.values()))
    if missing := _missing(keys, known):
        there, total = len(known), len(keys) * count
        tell(f"captions: {there:,} of {total:,} are there; {total - there:,} to write for {len(missing):,} pictures")
        with tqdm(total=total, initial=there, desc="captions", disable=not processes().is_main_process) as bar:
            _write(store, asking, _batches(missing, captioner.batch_size), bar)
        known = store.find(chain.from_iterable(keys.values()))
    captions = {digest: [known[key] for key in wanted if key in known] for digest, wanted in keys.items()}
    _check(captions, count, asking.failures, tell)
    return [captions[digest] for digest in digests]


def _missing(keys: Mapping[str, list[str]], known: Mapping[str, str]) -> dict[str, list[int]]:
    """By digest, the numbers that the store of any process lacks; those of machines with disks of their own differ."""
    mine = {digest: {n for n, key in enumerate(wanted) if key not in known} for digest, wanted in keys.items()}
    union: dict[str, set[int]] = defaultdict(set)
    for part in gather_object([{digest: numbers for digest, numbers in mine.items() if numbers}]):
        for digest, numbers in part.items():
            union[digest] |= numbers
    return {digest: sorted(numbers) for digest, numbers in union.items()}


def _batches(missing: Mapping[str, list[int]], size: int) -> list[Batch]:
    groups = defaultdict(list)
    for digest, numbers in missing.items():
        groups[tuple(numbers)].append(digest)
    return [
        (digests[start : start + size], numbers)
        for numbers, digests in groups.items()
        for start in range(0, len(digests), size)
    ]


def _write(store: TextStore, asking: Asking, batches: Sequence[Batch], bar: tqdm) -> None:
    """Every process writes and stores a batch, then they tell each other, and so on."""
    state = processes()
    for start in range(0, len(batches), state.num_processes):
        turn, written = batches[start : start + state.num_processes], []
        for digests, numbers in turn[state.process_index : state.process_index + 1]:
            for texts in asking.texts(digests, numbers):
                store.add(texts)
                bar.update(len(texts))
                written += texts
        bar.update(share(store, written))
    asking.failures.gather()
    state.wait_for_everyone()


def _check(captions: Mapping[str, list[str]], count: int, failures: Failures, tell: Callable[[str], None]) -> None:
    """Says what failed. Raises `ValueError` if a picture has no caption."""
    if failures.asked_again:
        tell(f"captions: {failures.asked_again:,} were asked for again")
    if lost := [digest for digest, texts in captions.items() if not texts]:
        raise ValueError(
            f"{len(lost):,} of {len(captions):,} pictures have no caption: {failures.named(lost)}. The others are stored; "
            "repair or remove these, and run again"
        )
    if partial := [digest for digest, texts in captions.items() if len(texts) < count]:
        number = sum(count - len(captions[digest]) for digest in partial)
        tell(f"captions: {number:,} could not be written; the {len(partial):,} pictures have others: {failures.named(partial)}")
