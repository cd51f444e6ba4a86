"""The command `m2c`."""

import typer

from m2c.commands import conversion, evaluation, quickstart, scoring, sharing, texts, training


app = typer.Typer(
    help="Turn any CLIP into a composed image retriever: search with a picture and words.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

app.command()(quickstart.quickstart)
# What follows `m2c train` is read by train_accelerate.py.
app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []})(
    training.train
)
app.command()(conversion.convert)
app.command()(evaluation.evaluate)
app.command()(scoring.score)
app.command()(texts.caption)
app.add_typer(texts.texts, name="texts")
app.command()(conversion.export)
app.command()(sharing.publish)
app.command()(sharing.publish_space)


if __name__ == "__main__":
    app()
