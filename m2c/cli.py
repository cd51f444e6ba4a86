"""The command `m2c`."""

import sys
from pathlib import Path
from typing import Annotated, Literal

import typer


app = typer.Typer(
    help="Turn any CLIP into a composed image retriever: search with a picture and words.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.command()
def quickstart(
    output: Annotated[Path, typer.Option(help="Folder for the report, the picture and the model.")] = Path("m2c-quickstart"),
    quick: Annotated[bool, typer.Option("--quick", help="Everything at reduced size, in about a minute.")] = False,
    seed: Annotated[int, typer.Option(help="Of training data, weights and order; the test set stays.")] = 0,
) -> None:
    """Make a composed retriever out of a tiny CLIP, on this machine, in a few minutes, and measure it.

    Trains both stages of M2C on a procedural world of shapes (no download), compares with the obvious alternatives, and writes
    report.md, report.json, retrieval.png and a model that AutoModel loads.
    """
    # Imported here: `m2c --help` should not wait for torch.
    from transformers.utils import logging

    from m2c.quickstart import FULL, QUICK
    from m2c.quickstart import quickstart as run
    from m2c.quickstart.report import table

    logging.disable_progress_bar()  # of reading and writing small files; those of the work itself stay
    try:
        report = run(output, QUICK if quick else FULL, seed, say=typer.echo)
    except (ValueError, OSError) as error:
        _fail(str(error), 1)
    except KeyboardInterrupt:
        _fail("interrupted; nothing was written", 130)
    typer.echo(f"\n{table(report['rows'])}\n")
    typer.echo(f"{report['seconds']} s. Look at {output / 'retrieval.png'} and {output / 'report.md'}. Then:")
    typer.echo(f"  {output / 'model' / 'README.md'} shows how to search with the model in five lines")
    typer.echo("  m2c train --help          train on your own images, from any CLIP")


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []})
def train(context: typer.Context) -> None:
    """Train stage 1 or stage 2 on your own data: train_accelerate.py, whose --help explains every argument."""
    import train_accelerate

    raise typer.Exit(train_accelerate.main(context.args))


@app.command()
def convert(
    checkpoint: Annotated[Path, typer.Argument(help="The file of the original authors.", show_default=False)],
    output: Annotated[Path, typer.Argument(help="Folder for the model. It must not exist, or be empty.", show_default=False)],
    method: Annotated[
        Literal["m2c", "pic2word", "searle", "lincir"],
        typer.Option("--from", help="Whose code wrote the checkpoint.", show_default=False),
    ],
    clip: Annotated[
        str | None,
        typer.Option(
            help="SEARLE, LinCIR: the CLIP that the mapper was trained with, on the Hub or in a folder. M2C, Pic2Word: "
            "where to take the tokenizer from (default: openai/clip-vit-large-patch14).",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Bring weights of the original M2C, Pic2Word, SEARLE or LinCIR code: makes a folder that AutoModel loads.

    Nothing in the checkpoint is executed, and every tensor in it is accounted for.

    For example: m2c convert phi_best.pt lincir-large --from lincir --clip openai/clip-vit-large-patch14
    """
    from transformers.utils import logging

    from hub_cards import write_converted_card
    from m2c.conversion import convert as run
    from m2c.output_folder import new_folder

    logging.disable_progress_bar()
    try:
        with new_folder(output) as folder:
            run(checkpoint, folder, method, clip, warn=lambda line: typer.echo(line, err=True))
            write_converted_card(folder)
    except (ValueError, OSError) as error:
        _fail(str(error), 1)
    typer.echo(f"Wrote {output}. {output / 'README.md'} says how to use it, and where the weights come from.")


@app.command()
def export(
    model: Annotated[str, typer.Argument(help="A retriever: a folder, or a repository of the Hub.", show_default=False)],
    output: Annotated[Path, typer.Argument(help="Folder for the files. It must not exist, or be empty.", show_default=False)],
) -> None:
    """Write a retriever as ONNX: one file each for image, text and composed features.

    Inputs are named as the processor names them, and batch size and prompt length are free. Needs the extra "onnx".

    For example: m2c export m2c-quickstart/model onnx
    """
    from transformers.utils import logging

    from m2c.checkpoints import load_model, load_processor
    from m2c.export import export_onnx
    from m2c.output_folder import new_folder

    logging.disable_progress_bar()
    try:
        with new_folder(output) as folder:
            paths = export_onnx(load_model(model).eval(), load_processor(model), folder)
    except ModuleNotFoundError as error:
        _fail(f"{error}; pip install onnx onnxscript, which are the extra m2c[onnx]", 1)
    except (ValueError, OSError) as error:
        _fail(str(error), 1)
    for path in paths:
        typer.echo(f"Wrote {output / path.name}")


def _fail(message: str, code: int) -> None:
    typer.echo(f"error: {message}" if code == 1 else message, err=True)
    sys.exit(code)


if __name__ == "__main__":
    app()
