"""`m2c train`."""

import typer


def train(context: typer.Context) -> None:
    """Train stage 1 or stage 2 on your own data: train_accelerate.py, whose --help explains every argument."""
    import train_accelerate

    raise typer.Exit(train_accelerate.main(context.args))
