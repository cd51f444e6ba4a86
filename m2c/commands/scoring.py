"""`m2c score`."""

import json
from pathlib import Path
from typing import Annotated, Literal

import typer

from .ending import fail


def score(
    benchmark: Annotated[Literal["cirr", "circo"], typer.Option(help="Whose file it is.", show_default=False)],
    annotations: Annotated[
        Path, typer.Option(help="CIRR's cap.rc2.SPLIT.json, or CIRCO's val.json or test.json.", show_default=False)
    ],
    predictions: Annotated[Path, typer.Option(help="The file that the server would be given.", show_default=False)],
    output: Annotated[Path | None, typer.Option(help="Write the record here, as JSON.", show_default=False)] = None,
) -> None:
    """Score or validate a prediction file of CIRR or CIRCO without a model, as the benchmark's server would.

    Annotations of a test split have no targets: then the file is validated only. Exits with 1 if it would be rejected.

    For example: m2c score --benchmark circo --annotations annotations/val.json --predictions circo-val.json
    """
    from m2c.evaluation.submissions import score as run
    from m2c.evaluation.submissions import table

    try:
        if output is not None and output.exists():
            fail(f"{output} exists already; choose another file, or remove it", 1)
        record = run(benchmark, annotations, predictions)
        if output is not None:
            output.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    except (ValueError, OSError) as error:
        fail(str(error), 1)
    typer.echo(table(record))
    if record["problems"]:
        raise typer.Exit(1)
