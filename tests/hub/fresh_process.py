"""Python processes as users of the Hub start them: with their own cache and token, and nothing of the tests."""

import inspect
import json
import subprocess
import sys
import textwrap
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from .server import LocalHub


# Between attempts the clients wait, for seconds each time. Here that time does not pass, it is written down.
SESSION = """
import json, sys, time, traceback
sys.modules.update(dict.fromkeys({hidden}))
time.sleep = lambda seconds: waits.append(seconds)
{functions}
outcomes = []
for name, arguments in json.loads(sys.argv[1]):
    waits = []
    try:
        outcome = {{"value": globals()[name](**arguments)}}
    except Exception as error:
        traceback.print_exc()
        outcome = {{"error": type(error).__name__, "message": str(error)}}
    outcomes.append({{**outcome, "waits": waits}})
print()
print(json.dumps(outcomes))
"""
OUR_PACKAGES = ("m2c", "modeling_m2c", "processing_m2c", "hub_cards")


@dataclass(frozen=True)
class Outcome:
    """How a call fared.

    Attributes:
        output: all that its process printed.
        waits: the times, in seconds, that it wanted to sleep.
        value: what it returned.
        error: the name of the exception that ended it, if one did, with its `message`.
    """

    output: str
    waits: list[float]
    value: object = None
    error: str | None = None
    message: str = ""


@dataclass(frozen=True)
class HubClient:
    """A user at a machine.

    Attributes:
        hub: where to go.
        home: holds the cache.
        token: `None` for somebody who has none.
        offline: cut off, with the cache alone.
        has_our_packages: whether the packages of this repository can be imported.
        variables: more of the environment.
    """

    hub: LocalHub
    home: Path
    token: str | None = None
    offline: bool = False
    has_our_packages: bool = True
    variables: Mapping[str, str] = field(default_factory=dict)

    def environment(self) -> dict[str, str]:
        """For `subprocess`. The clients read these variables when they are imported."""
        return {
            "PATH": "",
            "HOME": str(self.home),
            "HF_HOME": str(self.home),
            "HF_ENDPOINT": self.hub.url,
            "HF_HUB_OFFLINE": "1" if self.offline else "0",
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "OMP_NUM_THREADS": "1",
            **({} if self.token is None else {"HF_TOKEN": self.token}),
            **self.variables,
        }

    def python(self, *arguments: str) -> subprocess.CompletedProcess:
        """Runs `python ARGUMENTS`, however it ends."""
        self.home.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, *arguments]
        return subprocess.run(command, capture_output=True, text=True, env=self.environment(), cwd=self.home, timeout=1800)

    def session(self, *calls: partial) -> list[Outcome]:
        """Makes the calls one after the other in one fresh process, whatever becomes of each.

        Functions are sent as text: they see their keyword arguments, but nothing around them. Arguments and values are JSON;
        paths may be arguments too.
        """
        functions = {call.func.__name__: textwrap.dedent(inspect.getsource(call.func)) for call in calls}
        hidden = () if self.has_our_packages else OUR_PACKAGES
        code = SESSION.format(hidden=hidden, functions="\n".join(functions.values()))
        names = [(call.func.__name__, call.keywords) for call in calls]
        process = self.python("-P", "-c", code, json.dumps(names, default=str))
        if process.returncode != 0:
            raise AssertionError(f"the process of {', '.join(functions)} died:\n{process.stderr}")
        *printed, outcomes = process.stdout.splitlines()
        output = "\n".join([*printed, process.stderr])
        return [Outcome(output, **outcome) for outcome in json.loads(outcomes)]

    def attempt(self, function: Callable, **arguments) -> Outcome:
        """A session of one call."""
        return self.session(partial(function, **arguments))[0]

    def run(self, function: Callable, **arguments):
        """A call that must work. Returns what it returned."""
        outcome = self.attempt(function, **arguments)
        if outcome.error:
            raise AssertionError(f"{function.__name__} failed:\n{outcome.output}")
        return outcome.value
