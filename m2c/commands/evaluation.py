"""`m2c evaluate`."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from .ending import fail


COMPLEMENTARY = "With --method cvsi"


def evaluate(
    context: typer.Context,
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
    batch_size: Annotated[
        int,
        typer.Option(
            "--batch_size",
            min=1,
            help="Images or queries at a time, on each process; also captions that a local editor edits. A local captioner "
            "takes 16 pictures: with another number, run m2c caption before.",
        ),
    ] = 64,
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
    method: Annotated[
        Literal["plain", "cvsi"],
        typer.Option(
            help="plain: the query alone. cvsi: together with what a captioner and a language model write.",
            rich_help_panel=COMPLEMENTARY,
        ),
    ] = "plain",
    captioner: Annotated[
        str | None,
        typer.Option(
            help="An image-to-text model, on the Hub or in a folder. (default: on scenes, the tiny one that ships with this)",
            show_default=False,
            rich_help_panel=COMPLEMENTARY,
        ),
    ] = None,
    editor: Annotated[
        str | None,
        typer.Option(
            help="A chat model, on the Hub or in a folder. (default: on scenes, the tiny one that ships with this)",
            show_default=False,
            rich_help_panel=COMPLEMENTARY,
        ),
    ] = None,
    captioner_server: Annotated[
        str | None,
        typer.Option(
            "--captioner_server",
            help="URL of an OpenAI-compatible server that has the captioner, or an inference provider, such as auto.",
            show_default=False,
            rich_help_panel=COMPLEMENTARY,
        ),
    ] = None,
    editor_server: Annotated[
        str | None,
        typer.Option(
            "--editor_server",
            help="The same for the editor.",
            show_default=False,
            rich_help_panel=COMPLEMENTARY,
        ),
    ] = None,
    captioner_revision: Annotated[
        str | None,
        typer.Option(
            "--captioner_revision",
            help="Of the captioner on the Hub: a branch, a tag or a commit. Captions are found by the commit that wrote them. "
            "(default: the newest)",
            show_default=False,
            rich_help_panel=COMPLEMENTARY,
        ),
    ] = None,
    editor_revision: Annotated[
        str | None,
        typer.Option(
            "--editor_revision",
            help="The same for the editor.",
            show_default=False,
            rich_help_panel=COMPLEMENTARY,
        ),
    ] = None,
    editor_seed: Annotated[
        int,
        typer.Option(
            "--editor_seed",
            help="Of what the editor is asked again. With another one, all edits are asked for anew.",
            rich_help_panel=COMPLEMENTARY,
        ),
    ] = 0,
    editor_tries: Annotated[
        int,
        typer.Option(
            "--editor_tries",
            min=1,
            help="How often the editor is asked for a text, until a reply can be used.",
            rich_help_panel=COMPLEMENTARY,
        ),
    ] = 4,
    editor_max_new_tokens: Annotated[
        int,
        typer.Option(
            "--editor_max_new_tokens",
            min=1,
            help="Of a reply; one that is cut off has failed. A model that thinks aloud first needs thousands. With another "
            "number, all edits are asked for anew.",
            rich_help_panel=COMPLEMENTARY,
        ),
    ] = 128,
    concurrency: Annotated[
        int,
        typer.Option(
            min=1,
            help="Requests to a server at a time: of all processes together, at least one of each.",
            rich_help_panel=COMPLEMENTARY,
        ),
    ] = 8,
    captions: Annotated[
        int, typer.Option(min=1, help="Of each image; fewer are the first of more.", rich_help_panel=COMPLEMENTARY)
    ] = 15,
    edit: Annotated[
        Literal["each", "joined"],
        typer.Option(
            help="Edit each caption and average, as the paper does, or all of them together, as its code does.",
            rich_help_panel=COMPLEMENTARY,
        ),
    ] = "each",
    objects: Annotated[
        bool,
        typer.Option(
            help="Also ask the editor which objects are new, and name them in the composed query, as the paper does.",
            rich_help_panel=COMPLEMENTARY,
        ),
    ] = True,
    weights: Annotated[
        str | None,
        typer.Option(
            help="alpha,beta,gamma, or the benchmark whose preset is meant; with gamma 0 the gallery needs no captions. "
            "(default: the preset of the benchmark)",
            show_default=False,
            rich_help_panel=COMPLEMENTARY,
        ),
    ] = None,
    caption_feature: Annotated[
        Literal["mean", "unit"] | None,
        typer.Option(
            "--caption_feature",
            help="The mean of an image's caption features, as it is or at unit length. (default: as the weights' preset says)",
            show_default=False,
            rich_help_panel=COMPLEMENTARY,
        ),
    ] = None,
    tune: Annotated[
        bool,
        typer.Option(
            "--tune",
            help="Also find the weights that are best on these queries, for use on others.",
            rich_help_panel=COMPLEMENTARY,
        ),
    ] = False,
    caption_prompt: Annotated[
        str | None,
        typer.Option(
            "--caption_prompt",
            help="This and the following: as m2c caption has them.",
            show_default=False,
            rich_help_panel=COMPLEMENTARY,
        ),
    ] = None,
    caption_temperature: Annotated[
        float, typer.Option("--caption_temperature", help="Of the sampling.", rich_help_panel=COMPLEMENTARY)
    ] = 1.0,
    caption_top_p: Annotated[
        float | None,
        typer.Option("--caption_top_p", help="Of the sampling.", show_default=False, rich_help_panel=COMPLEMENTARY),
    ] = None,
    caption_seed: Annotated[int, typer.Option("--caption_seed", help="Of the sampling.", rich_help_panel=COMPLEMENTARY)] = 0,
    caption_max_new_tokens: Annotated[
        int | None,
        typer.Option("--caption_max_new_tokens", help="Of a caption.", show_default=False, rich_help_panel=COMPLEMENTARY),
    ] = None,
) -> None:
    """Measure a retriever on FashionIQ, CIRR, CIRCO or GeneCIS by their exact protocols, or on a benchmark of your own.

    Says first what is missing. Features and texts are stored as they come, so a run that was stopped goes on where it was. On
    several GPUs: accelerate launch -m m2c.cli evaluate ...

    For example: m2c evaluate --model m2c-quickstart/model --benchmark scenes
    """
    from transformers.utils import logging

    from m2c.evaluation.complementary import ComplementaryOptions
    from m2c.evaluation.evaluate import Options
    from m2c.evaluation.run import find_benchmark, run_evaluation
    from m2c.retrieval.captioning import CaptionSettings

    logging.disable_progress_bar()
    if method == "cvsi" and benchmark == "scenes":
        captioner, editor = captioner or "scenes", editor or "scenes"
    if method == "cvsi" and None in (captioner, editor):
        fail("--method cvsi needs a --captioner and an --editor; docs/complementary.md names some", 1)
    if method == "plain" and (given := _given_options(context, COMPLEMENTARY)):
        fail(f"{', '.join(given)}: only with --method cvsi", 1)
    try:
        complementary = None
        if method == "cvsi":
            complementary = ComplementaryOptions(
                captioner=captioner,
                editor=editor,
                captions=captions,
                caption_settings=CaptionSettings(
                    temperature=caption_temperature,
                    top_p=caption_top_p,
                    seed=caption_seed,
                    prompt=caption_prompt,
                    max_new_tokens=caption_max_new_tokens,
                ),
                form=edit,
                objects=objects,
                weights=weights,
                caption_feature=caption_feature,
                captioner_server=captioner_server,
                editor_server=editor_server,
                captioner_revision=captioner_revision,
                editor_revision=editor_revision,
                editor_seed=editor_seed,
                editor_max_new_tokens=editor_max_new_tokens,
                editor_tries=editor_tries,
                concurrency=concurrency,
                tune=tune,
            )
        options = Options(
            query, prompt, joining, shared_concept, dtype, None, batch_size, num_workers, cache_dir, complementary
        )
        parts = find_benchmark(benchmark, root, split, category, gallery)
        run_evaluation(model, parts, allow_missing, output, options, typer.echo)
    except (ValueError, OSError) as error:
        fail(str(error), 1)
    except KeyboardInterrupt:
        fail("interrupted; what was encoded is kept, and the next run goes on from there", 130)


def _given_options(context: typer.Context, panel: str) -> list[str]:
    """The options of a panel of the help that the command line names, beside `--method`."""
    return [
        "/".join((option.opts + option.secondary_opts)[:2])
        for option in context.command.params
        if option.rich_help_panel == panel
        and option.name != "method"
        # By name: the class is that of Click, or of the copy of it in newer releases of Typer.
        and context.get_parameter_source(option.name).name == "COMMANDLINE"
    ]
