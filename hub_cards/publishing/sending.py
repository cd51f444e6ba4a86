"""The way of a folder to the Hub, of whatever kind: what changes there is said, then it is sent, and seen to have arrived."""

from collections.abc import Callable
from pathlib import Path

from .hub import CARD, Destination, Present, Published, check_card, differing_files, look_up, names_in, send


# The Hub takes no more in one commit.
MOST_FILES = 25_000
SHOWN = 10


def send_checked(
    folder: Path, destination: Destination, say: Callable[[str], None], replace: bool = False, dry_run: bool = False
) -> Published | None:
    """Sends all of a folder as one commit, and compares what arrived by its checksums.

    Args:
        folder: all that the repository will hold, with its card.
        destination: where to.
        say: prints a line of progress.
        replace: also if the repository holds files that were not published with this package, or a card that somebody changed.
        dry_run: stop before anything is sent; the Hub is only asked.

    Returns:
        Where it is now; `None` after a dry run.

    Raises:
        ValueError: if that would replace the work of other tools, or change more files than the Hub takes at once.
        OSError: if the Hub refuses or cannot be reached, or does not hold what was sent.
    """
    kind, repo_id = destination.repo_type, destination.repo_id
    say(f"{'A pull request to' if destination.create_pr else 'For'} the {kind} {repo_id}:\n{contents(folder)}")
    present = look_up(destination)
    _say_removals(folder, present, say)
    _refuse(folder, destination, present, replace)
    check_card(folder, destination)
    if dry_run:
        say("This was a dry run: nothing was sent.")
        return None
    say("Sending ...")
    published = send(folder, destination, present, f"Publish {kind} with m2c")
    if not published.is_new:
        say("All of it is there already.")
    say(f"Checking revision {published.revision[:8]} ...")
    if files := differing_files(folder, destination, published.revision):
        raise OSError(f"{published.url} was published, but differs in {', '.join(files)}. Run the same command again")
    return published


def contents(folder: Path) -> str:
    """The files of a folder with their sizes, and the sum."""
    sizes = {name: (folder / name).stat().st_size for name in names_in(folder)}
    rows = [*sorted(sizes.items()), (f"{len(sizes)} files", sum(sizes.values()))]
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"  {name:<{width}}  {readable(size):>9}" for name, size in rows)


def readable(size: float) -> str:
    """A number of bytes for people."""
    if size < 1000:
        return f"{size} B"
    for unit in ("kB", "MB"):
        size /= 1000
        if size < 1000:
            return f"{size:.1f} {unit}"
    return f"{size / 1000:.1f} GB"


def _say_removals(folder: Path, present: Present, say: Callable[[str], None]) -> None:
    removed = sorted(present.files - names_in(folder))
    if removed:
        more = [f"  and {len(removed) - SHOWN} more"] if len(removed) > SHOWN else []
        say("\n".join(["What is there, but not here, is removed:", *(f"  {name}" for name in removed[:SHOWN]), *more]))


def _refuse(folder: Path, destination: Destination, present: Present, replace: bool) -> None:
    # A pull request replaces nothing before it is merged.
    is_careful = not (replace or destination.create_pr)
    if is_careful and not present.is_ours and present.files - {CARD}:
        raise ValueError(
            f"{destination.repo_id} holds files that were not published with m2c, and would be replaced. Publish under another "
            "name, or add --replace"
        )
    if is_careful and present.is_card_handwritten:
        raise ValueError(
            f"the card of {destination.repo_id} was written or changed by hand, and would be replaced. Keep what it says "
            "elsewhere, and add --replace"
        )
    changed = len(names_in(folder) | present.files)
    if changed > MOST_FILES:
        raise ValueError(
            f"{changed} files would change, and the Hub takes {MOST_FILES} at once; write pictures into parquet files, or "
            "publish under another name"
        )
