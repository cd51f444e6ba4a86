"""`m2c caption` and `m2c texts`: captions ahead of a search, and the exchange of what models wrote."""

import shlex
from pathlib import Path
from typing import Annotated, Literal

import typer

from .ending import fail


texts = typer.Typer(
    help="Publish what captioners and language models wrote, or take over what others published.", no_args_is_help=True
)
CacheFolder = Annotated[
    Path | None,
    typer.Option(
        "--cache_dir",
        help="Where texts are kept. (default: ~/.cache/m2c, or the folder that M2C_CACHE in the environment names)",
        show_default=False,
    ),
]
TextFile = Annotated[Path, typer.Argument(help="Its name ends in .parquet, or in .jsonl for JSON lines.", show_default=False)]


def caption(
    images: Annotated[Path, typer.Argument(help="Folder of pictures.", show_default=False)],
    captioner: Annotated[
        str,
        typer.Option(
            help="An image-to-text model on the Hub or in a folder: BLIP, BLIP-2, one that chats about pictures; scenes is the "
            "tiny one for drawn scenes. With --server, the name of a model there.",
            show_default=False,
        ),
    ],
    captions: Annotated[int, typer.Option(min=1, help="Of each picture; fewer are the first of more.")] = 15,
    server: Annotated[
        str | None,
        typer.Option(
            help="URL of an OpenAI-compatible server, or an inference provider, such as auto. The token is that of "
            "OPENAI_API_KEY or HF_TOKEN in the environment.",
            show_default=False,
        ),
    ] = None,
    revision: Annotated[
        str | None,
        typer.Option(
            help="Of the captioner on the Hub: a branch, a tag or a commit. Captions are found by the commit that wrote them. "
            "(default: the newest)",
            show_default=False,
        ),
    ] = None,
    prompt: Annotated[
        str | None,
        typer.Option(
            help="What a model that chats is asked to do (default: to write one sentence); of others, how captions begin.",
            show_default=False,
        ),
    ] = None,
    temperature: Annotated[float, typer.Option(help="Of the sampling; lower makes captions more alike.")] = 1.0,
    top_p: Annotated[
        float | None,
        typer.Option("--top_p", help="Of the sampling, for models that do not chat. (default: 0.9)", show_default=False),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the sampling.")] = 0,
    max_new_tokens: Annotated[
        int | None,
        typer.Option(
            "--max_new_tokens",
            help="Of a caption. (default: what the model says, else 30; 96 for models that chat)",
            show_default=False,
        ),
    ] = None,
    batch_size: Annotated[
        int,
        typer.Option("--batch_size", min=1, help="Pictures at a time, on each process; captions, of a model that chats."),
    ] = 16,
    concurrency: Annotated[
        int,
        typer.Option(min=1, help="With --server, requests at a time: of all processes together, at least one of each."),
    ] = 8,
    cache_dir: CacheFolder = None,
) -> None:
    """Write captions of pictures ahead, for complementary retrieval: m2c evaluate --method cvsi finds them again.

    They are stored as they are written, by the content of the picture, so a run that was stopped goes on where it was. On
    several GPUs: accelerate launch -m m2c.cli caption ...

    For example: m2c caption photos --captioner Salesforce/blip-image-captioning-large
    """
    from transformers.utils import logging

    from m2c.cache_dir import cache_folder
    from m2c.encoding import processes
    from m2c.retrieval.captioning import CaptionSettings, load_captioner
    from m2c.retrieval.captioning import caption as run
    from m2c.retrieval.picture_folder import PictureFolder
    from m2c.retrieval.text_store import CAPTION, FILE_NAME, TextStore, say_other_revisions

    logging.disable_progress_bar()  # of reading models; that of the work itself stays
    cache = cache_folder(cache_dir)
    try:
        settings = CaptionSettings(temperature, top_p, seed, prompt, max_new_tokens)
        folder = PictureFolder(images, cache)
        loaded = load_captioner(captioner, settings, server, batch_size, concurrency, revision)
        store = TextStore(cache / FILE_NAME)
        say_other_revisions(store, CAPTION, loaded.identity, "--revision", typer.echo)
        found = run(store, loaded, folder.picture, folder.digests, captions, folder.names, typer.echo)
    except (ValueError, OSError) as error:
        fail(str(error), 1)
    except KeyboardInterrupt:
        fail("interrupted; the captions that were written are kept, and the same command goes on from there", 130)
    if processes().is_main_process:
        export = ["m2c", "texts", "export", "captions.parquet", "--kind", "caption", "--images", str(images)]
        export += [] if cache_dir is None else ["--cache_dir", str(cache_dir)]
        typer.echo(f"{sum(map(len, found)):,} captions of {len(found):,} pictures are in {store.path}. To publish them:")
        typer.echo(f"  {shlex.join(export)}")


@texts.command("export")
def export_file(
    file: TextFile,
    kind: Annotated[
        Literal["caption", "edited caption", "added objects"] | None,
        typer.Option(help="Only texts of this kind. (default: all)", show_default=False),
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="Only texts of the model with this name. (default: all)", show_default=False)
    ] = None,
    images: Annotated[
        Path | None,
        typer.Option(help="Only captions of the pictures in this folder, with their file names.", show_default=False),
    ] = None,
    cache_dir: CacheFolder = None,
) -> None:
    """Write texts to a file: one row for each, with the model, its settings, and what it was made from.

    For example: m2c texts export captions.parquet --kind caption
    """
    from m2c.cache_dir import cache_folder
    from m2c.retrieval.picture_folder import PictureFolder
    from m2c.retrieval.text_store import FILE_NAME, TextStore, export_texts

    cache = cache_folder(cache_dir)
    try:
        names = None
        if images is not None:
            folder = PictureFolder(images, cache)
            names = dict(zip(reversed(folder.digests), reversed(folder.names)))  # of equal pictures, the first
        count = export_texts(TextStore(cache / FILE_NAME), file, kind, model, names)
    except (ValueError, OSError) as error:
        fail(str(error), 1)
    typer.echo(f"Wrote {count:,} texts to {file}")


@texts.command("import")
def import_file(file: TextFile, cache_dir: CacheFolder = None) -> None:
    """Take over the texts of a file that m2c texts export wrote. Each is checked; those that are known stay as they are.

    For example: m2c texts import captions.parquet
    """
    from m2c.cache_dir import cache_folder
    from m2c.retrieval.text_store import FILE_NAME, TextStore, import_texts

    try:
        store = TextStore(cache_folder(cache_dir) / FILE_NAME)
        new, known = import_texts(store, file)
    except (ValueError, OSError) as error:
        fail(str(error), 1)
    typer.echo(f"{new:,} texts are new in {store.path}, {known:,} were known")
