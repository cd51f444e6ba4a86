"""The command `m2c`."""

import json
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

    from hub_cards import write_card
    from m2c.conversion import convert as run
    from m2c.output_folder import new_folder

    logging.disable_progress_bar()
    try:
        with new_folder(output) as folder:
            run(checkpoint, folder, method, clip, warn=lambda line: typer.echo(line, err=True))
            write_card(folder)
    except (ValueError, OSError) as error:
        _fail(str(error), 1)
    typer.echo(f"Wrote {output}. {output / 'README.md'} says how to use it, and where the weights come from.")


@app.command()
def evaluate(
    model: Annotated[str, typer.Option(help="A retriever: a folder, or a repository of the Hub.", show_default=False)],
    benchmark: Annotated[
        Literal["fashioniq", "cirr", "circo", "genecis", "scenes", "own"],
        typer.Option(help="Which benchmark; scenes needs no files, own is one in the documented form.", show_default=False),
    ],
    root: Annotated[
        Path | None, typer.Option(help="Folder of the benchmark's files, as its owners ship them.", show_default=False)
    ] = None,
    split: Annotated[str | None, typer.Option(help="Split of the benchmark. (default: val)", show_default=False)] = None,
    category: Annotated[
        str | None,
        typer.Option(help="One category of FashionIQ or task of GeneCIS. (default: all, and their mean)", show_default=False),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(help="Folder for record.json, table.md and the files for a server; it must not exist, or be empty."),
    ] = None,
    query: Annotated[
        Literal["composed", "text", "image", "sum"],
        typer.Option(help="What queries are made of; all but composed are plain CLIP, for comparison."),
    ] = "composed",
    prompt: Annotated[
        str | None,
        typer.Option(help='Template, such as "a photo of * , {text}". (default: that of the method)', show_default=False),
    ] = None,
    joining: Annotated[
        Literal["first-second", "second-first", "both"] | None,
        typer.Option(help="FashionIQ: order of the two captions. (default: that of the method)", show_default=False),
    ] = None,
    gallery: Annotated[
        Literal["original", "val"],
        typer.Option(help="FashionIQ: the whole split, or the images of its queries only (the VAL split)."),
    ] = "original",
    shared_concept: Annotated[
        bool, typer.Option("--shared_concept", help="CIRCO: put the shared concept behind the text, as few methods do.")
    ] = False,
    allow_missing: Annotated[
        bool,
        typer.Option("--allow_missing", help="Go on without images that are missing or broken; the record counts them."),
    ] = False,
    dtype: Annotated[Literal["float32", "bfloat16", "float16"], typer.Option(help="Precision of the model.")] = "float32",
    batch_size: Annotated[int, typer.Option("--batch_size", min=1, help="Images or queries at a time, on each process.")] = 64,
    num_workers: Annotated[
        int, typer.Option("--num_workers", min=0, help="Processes that read images, for each one that encodes.")
    ] = 0,
    cache_dir: Annotated[
        Path | None,
        typer.Option(
            "--cache_dir",
            help="Where features of images are kept, for another prompt, adapter or benchmark. (default: ~/.cache/m2c, or the "
            "folder that M2C_CACHE in the environment names)",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Measure a retriever on FashionIQ, CIRR, CIRCO or GeneCIS by their exact protocols, or on a benchmark of your own.

    Says first what is missing. Features are stored as they are computed, so a run that was stopped goes on where it was. On
    several GPUs: accelerate launch -m m2c.cli evaluate ...

    For example: m2c evaluate --model m2c-quickstart/model --benchmark scenes
    """
    from transformers.utils import logging

    from m2c.evaluation.evaluate import Options
    from m2c.evaluation.run import find_benchmark, run_evaluation

    logging.disable_progress_bar()
    options = Options(query, prompt, joining, shared_concept, dtype, None, batch_size, num_workers, cache_dir)
    try:
        parts = find_benchmark(benchmark, root, split, category, gallery)
        run_evaluation(model, parts, allow_missing, output, options, typer.echo)
    except (ValueError, OSError) as error:
        _fail(str(error), 1)
    except KeyboardInterrupt:
        _fail("interrupted; what was encoded is kept, and the next run goes on from there", 130)


@app.command()
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
            _fail(f"{output} exists already; choose another file, or remove it", 1)
        record = run(benchmark, annotations, predictions)
        if output is not None:
            output.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    except (ValueError, OSError) as error:
        _fail(str(error), 1)
    typer.echo(table(record))
    if record["problems"]:
        raise typer.Exit(1)


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


@app.command()
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
    create_pr: Annotated[
        bool, typer.Option("--create-pr", help="As a pull request, which changes nothing until it is merged.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check all, show what would be sent, send nothing.")] = False,
    licence: Annotated[
        str | None,
        typer.Option("--licence", "--license", help="As the Hub names it, such as apache-2.0.", show_default=False),
    ] = None,
    source: Annotated[
        str | None, typer.Option(help="Of a data set: where its images and texts come from.", show_default=False)
    ] = None,
) -> None:
    """Share a model or a data set on the Hugging Face Hub, with a card written from its records, after checks.

    Refuses pickles, secrets, paths of this machine, and pictures without a licence. Sends all as one commit, then compares what
    is there with what was sent, and loads the model from there. Log in first: hf auth login

    For example: m2c publish m2c-quickstart/model you/m2c-scenes
    """
    from huggingface_hub.constants import HF_HUB_DISABLE_PROGRESS_BARS
    from huggingface_hub.utils import enable_progress_bars
    from transformers.utils import logging

    from hub_cards.publishing import Options
    from hub_cards.publishing import publish as run

    if adapter_only and merge:
        _fail("--adapter-only and --merge exclude each other", 1)
    form = "adapter" if adapter_only else "merged" if merge else "as it is"
    logging.disable_progress_bar()  # of reading and writing files here; those of the upload stay
    if not HF_HUB_DISABLE_PROGRESS_BARS:
        enable_progress_bars()
    try:
        run(folder, repository, Options(private, form, base, create_pr, dry_run, licence, source), typer.echo)
    except (ValueError, OSError) as error:
        typer.echo(err=True)  # a bar of an upload may end where the cursor is
        _fail(str(error), 1)
    except KeyboardInterrupt:
        typer.echo(err=True)
        _fail("interrupted; nothing is half published, and the same command goes on from there", 130)


@app.command()
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
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check all, show what would be sent, send nothing.")] = False,
) -> None:
    """Make a page where anybody can search a gallery with your model: a Space of the Hub, or a folder to try on this machine.

    A file examples.jsonl in the gallery's folder holds queries to begin with, each on a line:
    {"file_name": "dress.jpg", "modification": "is red"}. Needs the extra "demo".

    For example: m2c publish-space m2c-quickstart/model --output space; then: python space/app.py
    """
    from transformers.utils import logging

    from hub_cards import space

    if (repository is None) == (output is None):
        _fail("name either a repository of the Hub, or a folder with --output", 1)
    logging.disable_progress_bar()
    try:
        pictures = space.read_gallery(gallery, licence)
        if repository is not None:
            space.publish_space(model, repository, pictures, private, dry_run, typer.echo)
        else:
            space.make_space(model, pictures, output, typer.echo)
            typer.echo(f"Wrote {output}. To try it: python {output / 'app.py'}")
    except ModuleNotFoundError as error:
        _fail(f"{error}; pip install gradio, which is the extra m2c[demo]", 1)
    except (ValueError, OSError) as error:
        _fail(str(error), 1)
    except KeyboardInterrupt:
        _fail("interrupted; nothing was written, and nothing is half published", 130)


def _fail(message: str, code: int) -> None:
    typer.echo(f"error: {message}" if code == 1 else message, err=True)
    sys.exit(code)


if __name__ == "__main__":
    app()
