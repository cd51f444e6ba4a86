"""How a command ends that cannot go on."""

import sys
from typing import NoReturn

import typer


def fail(message: str, code: int) -> NoReturn:
    """Ends the command: with one line, and code 1 for an error or another one for an end on request."""
    typer.echo(f"error: {message}" if code == 1 else message, err=True)
    sys.exit(code)
