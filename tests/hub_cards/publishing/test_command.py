"""How the commands end that cannot go on: no token is in what they leave on the screen, whatever it was that went wrong."""

import pytest
from typer.testing import CliRunner

from hub_cards import publishing, space
from m2c.cli import app


TOKEN = "hf_" + 34 * "x"


@pytest.fixture(params=["publish", "publish-space"])
def command(request, monkeypatch):
    """Either command, of which the work is replaced."""

    def run(work):
        monkeypatch.setattr(publishing, "publish", work)
        monkeypatch.setattr(space, "publish_space", work)
        return CliRunner().invoke(app, [request.param, "you/model", "you/name"])

    return run


def failing_with(error: BaseException):
    def fail(*_):
        raise error

    return fail


@pytest.mark.parametrize("error", [ValueError(f"no {TOKEN}"), OSError(f"no {TOKEN}")])
def test_what_was_foreseen_is_one_line(command, error):
    done = command(failing_with(error))
    assert done.exit_code == 1 and done.stderr.strip() == "error: no ***"


@pytest.mark.parametrize("error", [RuntimeError(f"no {TOKEN}"), KeyError(TOKEN), ModuleNotFoundError(f"no {TOKEN}")])
def test_what_was_not_foreseen_has_its_traceback_without_secrets(command, error, monkeypatch):
    """Also where another error was behind it, and a secret of this machine that has no form."""
    monkeypatch.setenv("STORAGE_PASSWORD", "plain words, as a password may be")

    def work(*_):
        try:
            raise LookupError("plain words, as a password may be")
        except LookupError:
            raise error from None if isinstance(error, KeyError) else error

    done = command(work)
    assert done.exit_code == 1 and "Traceback" in done.stderr and f"{type(error).__name__}: " in done.stderr
    assert "***" in done.stderr and TOKEN not in done.output and "plain words" not in done.output
    assert done.stderr.strip().endswith("error: this should not happen; please report it, with the lines above")
    assert isinstance(done.exception, SystemExit), "the interpreter would print what goes further"


def test_ctrl_c(command):
    done = command(failing_with(KeyboardInterrupt()))
    assert done.exit_code == 130 and "nothing is half published" in done.stderr
