"""`m2c publish-space`: a page on which anybody can search with a model."""

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

from hub_cards.licences import is_on_hub
from hub_cards.publishing.checks import refuse_problems
from hub_cards.publishing.failures import reading_from_hub
from hub_cards.publishing.hub import Destination, Published
from hub_cards.publishing.sending import send_checked
from m2c.output_folder import new_folder

from .folder import write_space
from .gallery import Gallery
from .trial import try_out


def make_space(model: str, gallery: Gallery, output: Path, say: Callable[[str], None] = print) -> None:
    """Writes a Space into a new folder, and sees that it runs.

    Args:
        model: a retriever: a repository of the Hub, or a folder, and then the Space runs on this machine only.
        gallery: what is searched.
        output: the folder.
        say: prints a line of progress.

    Raises:
        ValueError: if model or gallery are not fit for it, or the page does not run.
        FileExistsError: if `output` exists and is not an empty folder.
        ModuleNotFoundError: if gradio is not installed.
    """
    with new_folder(output) as folder, reading_from_hub():
        write_space(model, gallery, folder)
        say("Running it in a fresh process ...")
        try_out(folder)


def publish_space(
    model: str,
    repo_id: str,
    gallery: Gallery,
    private: bool = False,
    replace: bool = False,
    dry_run: bool = False,
    say: Callable[[str], None] = print,
) -> Published | None:
    """Makes a Space, sees that it runs, and sends it to the Hub as one commit.

    Args:
        model: a retriever: a repository of the Hub.
        repo_id: where to, `"user/name"`.
        gallery: what is searched.
        private: for a Space that is not there yet.
        replace: also a Space that was not made with this package.
        dry_run: stop before anything is sent.
        say: prints a line of progress.

    Returns:
        Where it is now; `None` after a dry run.

    Raises:
        ValueError: if model or gallery are not fit for it, or the page does not run.
        OSError: if the Hub refuses or cannot be reached, or does not hold what was sent.
        ModuleNotFoundError: if gradio is not installed.
    """
    if not is_on_hub(repo_id):
        raise ValueError(f"{repo_id!r} is no name of a Space; write it as user/name")
    if os.path.isdir(model):
        raise ValueError(
            f"a Space loads its model from the Hub, and {model} is a folder here: publish that with m2c publish, and name its "
            "repository; or try the page on this machine, with --output"
        )
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary, "space")
        make_space(model, gallery, folder, say)
        refuse_problems(folder, "the Space", gallery.licence)
        published = send_checked(folder, Destination(repo_id, "space", private), say, replace, dry_run)
    if published is not None:
        say(f"Published: {published.url}\nThe Hub builds the page now, which takes some minutes.")
    return published
