"""`m2c quickstart`."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from .ending import fail


def quickstart(
    output: Annotated[Path, typer.Option(help="Folder for the report, the picture and the model.")] = Path("m2c-quickstart"),
    quick: Annotated[bool, typer.Option("--quick", help="Everything at reduced size, in about a minute.")] = False,
    seed: Annotated[int, typer.Option(help="Of training data, weights and order; the test set stays.")] = 0,
    method: Annotated[
        Literal["plain", "cvsi"],
        typer.Option(help="cvsi: measure also what a captioner and a language model add, part by part."),
    ] = "plain",
) -> None:
    """Make a composed retriever out of a tiny CLIP, on this machine, in a few minutes, and measure it.

    Trains both stages of M2C on a procedural world of shapes (no download), compares with the obvious alternatives, and writes
    report.md, report.json, retrieval.png and a model that AutoModel loads.
    """
    from transformers.utils import logging

    from m2c.quickstart import FULL, QUICK
    from m2c.quickstart import quickstart as run
    from m2c.quickstart.report import complementary_table, table

    logging.disable_progress_bar()  # of reading and writing small files; those of the work itself stay
    try:
        report = run(output, QUICK if quick else FULL, seed, method, say=typer.echo)
    except (ValueError, OSError) as error:
        fail(str(error), 1)
    except KeyboardInterrupt:
        fail("interrupted; nothing was written", 130)
    typer.echo(f"\n{table(report['rows'])}\n")
    if report["complementary"]:
        typer.echo(f"{complementary_table(report['complementary'])}\n")
    typer.echo(f"{report['seconds']} s. Look at {output / 'retrieval.png'} and {output / 'report.md'}. Then:")
    typer.echo(f"  {output / 'model' / 'README.md'} shows how to search with the model in five lines")
    typer.echo("  m2c train --help          train on your own images, from any CLIP")
