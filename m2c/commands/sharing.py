"""`m2c publish` and `m2c publish-space`."""

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Annotated

import typer

from .ending import fail


DryRun = Annotated[bool, typer.Option("--dry-run", help="Check all, show what would change, send nothing.")]


def publish(
    folder: Annotated[Path, typer.Argument(help="What training or conversion wrote, or a data set.", show_default=False)],
    repository: Annotated[str, typer.Argument(help="Where to: user/name, or organisation/name.", show_default=False)],
    private: Annotated[bool, typer.Option("--private", help="If the repository is new, only you can see it.")] = False,
    adapter_only: Annotated[
        bool, typer.Option("--adapter-only", help="The adapter of stage 2 alone, a few MB; its base must be on the Hub.")
    ] = False,
    merge: Annotated[bool, typer.Option("--merge", help="With the adapter merged into the weights: needs no peft.")] = False,
    base: Annotated[
        str | None,
        typer.Option(help="Of an adapter alone: repository of the stage-1 model that it was trained on.", show_default=False),
    ] = None,
    results: Annotated[
        list[Path] | None,
        typer.Option(help="What m2c evaluate --output wrote of this model; once for each benchmark.", show_default=False),
    ] = None,
    results_dataset: Annotated[
        list[str] | None,
        typer.Option(
            "--results-dataset",
            help="Where a benchmark is on the Hub: cirr=user/name, for its leaderboard.",
            show_default=False,
        ),
    ] = None,
    create_pr: Annotated[
        bool, typer.Option("--create-pr", help="As a pull request, which changes nothing until it is merged.")
    ] = False,
    replace: Annotated[
        bool,
        typer.Option("--replace", help="Also files that were not published with m2c, and a card that was changed by hand."),
    ] = False,
    dry_run: DryRun = False,
    licence: Annotated[
        str | None,
        typer.Option(
            "--licence",
            "--license",
            help="Of the repository, as the Hub names it: apache-2.0. Data sets need one.",
            show_default=False,
        ),
    ] = None,
    pictures_licence: Annotated[
        str | None,
        typer.Option(
            "--pictures-licence",
            "--pictures-license",
            help="Of the pictures that go with a model; drawn scenes need none.",
            show_default=False,
        ),
    ] = None,
    source: Annotated[
        str | None, typer.Option(help="Of a data set: where its images and texts come from.", show_default=False)
    ] = None,
) -> None:
    """Share a model or a data set on the Hugging Face Hub, with a card written from its records, after checks.

    Refuses pickles, secrets, paths of this machine, and pictures without a licence. Sends all as one commit, which also removes
    what is there, but not here; then compares what is there with what was sent, and loads it from there. Log in first:
    hf auth login

    For example: m2c publish m2c-quickstart/model you/m2c-scenes
    """
    from transformers.utils import logging

    from hub_cards.publishing import Options, Results, without_secrets
    from hub_cards.publishing import publish as run

    if adapter_only and merge:
        fail("--adapter-only and --merge exclude each other", 1)
    form = "adapter" if adapter_only else "merged" if merge else "as it is"
    logging.disable_progress_bar()  # of reading and writing files here; those of the upload stay
    with _ending("interrupted; nothing is half published, and the same command goes on from there"):
        measured = Results(tuple(results or ()), _pairs(results_dataset or [], "--results-dataset"))
        options = Options(private, form, base, measured, create_pr, replace, dry_run, licence, pictures_licence, source)
        run(folder, repository, options, lambda text: typer.echo(without_secrets(text)))


def publish_space(
    model: Annotated[str, typer.Argument(help="A retriever: a repository of the Hub, or a folder.", show_default=False)],
    repository: Annotated[
        str | None, typer.Argument(help="Where to: user/name, or organisation/name.", show_default=False)
    ] = None,
    gallery: Annotated[str, typer.Option(help="Folder of pictures to search; scenes needs none, they are drawn.")] = "scenes",
    licence: Annotated[
        str | None,
        typer.Option("--licence", "--license", help="Of the pictures, as the Hub names it: cc-by-4.0.", show_default=False),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(help="Write the page here and send nothing. The folder must not exist, or be empty.", show_default=False),
    ] = None,
    private: Annotated[bool, typer.Option("--private", help="If the Space is new, only you can see it.")] = False,
    replace: Annotated[
        bool,
        typer.Option("--replace", help="Also files that were not published with m2c, and a card that was changed by hand."),
    ] = False,
    dry_run: DryRun = False,
) -> None:
    """Make a page where anybody can search a gallery with your model: a Space of the Hub, or a folder to try on this machine.

    A file examples.jsonl in the gallery's folder holds queries to begin with, each on a line:
    {"file_name": "dress.jpg", "modification": "is red"}. Needs the extra "demo".

    For example: m2c publish-space m2c-quickstart/model --output space; then: python space/app.py
    """
    from transformers.utils import logging

    from hub_cards import space
    from hub_cards.publishing import without_secrets

    def say(text: str) -> None:
        typer.echo(without_secrets(text))

    if (repository is None) == (output is None):
        fail("name either a repository of the Hub, or a folder with --output", 1)
    logging.disable_progress_bar()
    with _ending("interrupted; nothing was written, and nothing is half published"):
        pictures = space.read_gallery(gallery, licence)
        if repository is not None:
            space.publish_space(model, repository, pictures, private, replace, dry_run, say)
        else:
            space.make_space(model, pictures, output, say)
            typer.echo(f"Wrote {output}. To try it: python {output / 'app.py'}")


@contextmanager
def _ending(interrupted: str) -> Iterator[None]:
    """How both commands end that cannot go on: what was foreseen is one line, all else a traceback; no secret is in either."""
    from hub_cards.publishing import without_secrets

    try:
        yield
    except PackageNotFoundError as error:
        fail(f"{error}; pip install gradio, which is the extra m2c[demo]", 1)
    except (ValueError, OSError) as error:
        typer.echo(err=True)  # a bar of an upload may end where the cursor is
        fail(without_secrets(str(error)), 1)
    except KeyboardInterrupt:
        typer.echo(err=True)
        fail(interrupted, 130)
    except Exception:
        typer.echo(without_secrets(traceback.format_exc()), err=True)
        fail("this should not happen; please report it, with the lines above", 1)


def _pairs(texts: list[str], option: str) -> dict[str, str]:
    """`NAME=VALUE` as a mapping."""
    wrong = [text for text in texts if "=" not in text]
    if wrong:
        raise ValueError(f"{option} takes NAME=REPOSITORY, not {wrong[0]!r}")
    return dict(text.split("=", 1) for text in texts)
