"""Texts that the same model wrote, but at another revision."""

from collections.abc import Callable

from m2c.encoding import processes

from .store import TextStore


def say_other_revisions(store: TextStore, kind: str, generator: dict, option: str, say: Callable[[str], None]) -> None:
    """Says which other revisions wrote texts with the same settings, and how to have those instead of new ones; one process
    speaks for all.

    Args:
        store: where texts are.
        kind: of the texts.
        generator: the one that is asked.
        option: that chooses the revision.
        say: prints a line.
    """
    if not processes().is_main_process:
        return
    own = generator.get("revision")
    for other, count in store.counts(kind, generator["model"]):
        revision = other.get("revision")
        if revision != own and {**other, "revision": own} == generator:
            # A commit has 40 digits; of a folder it is the SHA-256 of its files, which nobody can choose.
            remedy = f"{option} {revision} finds them" if len(revision or "") == 40 else "those of other files are not used"
            say(
                f"{kind}: {count:,} of {generator['model']} with these settings are from revision {revision}, not {own}; "
                f"{remedy}"
            )
