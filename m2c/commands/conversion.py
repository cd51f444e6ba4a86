"""`m2c convert` and `m2c export`: weights from elsewhere, and to elsewhere."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from .ending import fail


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

    from hub_cards import write_card
    from m2c.conversion import convert as run
    from m2c.output_folder import new_folder

    logging.disable_progress_bar()
    try:
        with new_folder(output) as folder:
            run(checkpoint, folder, method, clip, warn=lambda line: typer.echo(line, err=True))
            write_card(folder)
    except (ValueError, OSError) as error:
        fail(str(error), 1)
    typer.echo(f"Wrote {output}. {output / 'README.md'} says how to use it, and where the weights come from.")


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
        fail(f"{error}; pip install onnx onnxscript, which are the extra m2c[onnx]", 1)
    except (ValueError, OSError) as error:
        fail(str(error), 1)
    for path in paths:
        typer.echo(f"Wrote {output / path.name}")
