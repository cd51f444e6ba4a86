"""Whatever goes wrong on the way, a repository is the old one or the new one, the message says what to do, and the same command
completes; also the first time, where the old one is none, or one without files. Models are not loaded here."""

import os
import signal
import time
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path

import pytest

from ...hub.faults import ConnectionLost, CorruptUpload, DropAnswer, DropUpload, Effect, Refuse, Stall
from ...hub.storage import Blob, Repository
from ...hub.test_faults import COMMIT, PREUPLOAD, UPLOAD
from ...hub.user_code import clear_faults, head, plan_fault
from .user_code import compare, publish, write_process_id


@dataclass(frozen=True)
class Interrupt(Effect):
    """In the middle of an upload somebody presses Ctrl-C."""

    process: Path

    def receive(self, read, length):
        read(length // 2)
        os.kill(int(self.process.read_text()), signal.SIGINT)
        time.sleep(0.3)
        raise ConnectionLost


@dataclass(frozen=True)
class Overtake(Effect):
    """While somebody uploads, another commit is made."""

    repository: Repository

    def answer(self, carry_out):
        self.repository.commit("main", {"other.txt": Blob(b"other")}, "overtakes", self.repository.at().oid)
        return carry_out()


@dataclass(frozen=True)
class Case:
    """What goes wrong, how often, after how many requests that go well (`skip_first`: the first time), and what is said then.
    `is_first` and `is_next` say whether it can go wrong the first time, and later."""

    requests: str
    effect: Effect
    said: str
    times: int | None = None
    skip: int = 0
    skip_first: int = 0
    patience: float = 100.0
    is_first: bool = True
    is_next: bool = True


CREATE, QUESTION, TREE = "POST /api/repos/create", "GET /api/models/[^/]*/[^/]*$", "GET .*/tree/"
AGAIN, PUBLISHED, OVERTAKEN = "Run the same command again", "Published: ", "something else was published there at the same time"
CASES = {
    "unknown-token": Case("POST", Refuse(401), "Log in with `hf auth login`"),
    "may-not-write": Case(COMMIT, Refuse(403, message="read only"), "your token may not do that (read only). Use one that may"),
    "vanished": Case(COMMIT, Refuse(404, code="RepoNotFound"), "there is no such repository"),
    "somebody-else": Case(COMMIT, Refuse(412), OVERTAKEN),
    "rate-limit": Case(COMMIT, Refuse(429, retry_after=7), "the Hub asks to wait"),
    "refused": Case(COMMIT, Refuse(400, message="too many files"), "the Hub refuses it with status 400 (too many files)"),
    "down-at-a-question": Case(QUESTION, Refuse(500), AGAIN, times=1),
    "down-at-creation": Case(CREATE, Refuse(500), AGAIN, is_next=False),
    "down-at-the-card": Case("validate-yaml", Refuse(503), AGAIN),
    "down-at-the-list": Case(TREE, Refuse(500), AGAIN, is_first=False),
    "down-before-uploads": Case(PREUPLOAD, Refuse(500), AGAIN),
    "down-at-uploads": Case(UPLOAD, Refuse(500), AGAIN),
    "down-at-the-commit": Case(COMMIT, Refuse(500), AGAIN),
    "silent-at-creation": Case(CREATE, Stall(1000), AGAIN, patience=0.15, is_next=False),
    "silent-at-a-question": Case(QUESTION, Stall(1000), AGAIN, times=1, patience=0.15),
    "silent-after-creation": Case(QUESTION, Stall(1000), AGAIN, times=1, skip_first=1, patience=0.15, is_next=False),
    "silent-at-uploads": Case(UPLOAD, Stall(1000), AGAIN, patience=0.15),
    "silent-at-the-commit": Case(COMMIT, Stall(1000), AGAIN, patience=0.15),
    "lost-at-creation": Case(CREATE, DropAnswer(), AGAIN, times=1, is_next=False),
    "lost-in-an-upload": Case(UPLOAD, DropUpload(after_bytes=3_000_000), AGAIN),
    "lost-in-the-commit": Case(COMMIT, DropUpload(after_bytes=100), AGAIN),
    "wrong-checksum": Case(UPLOAD, CorruptUpload(), AGAIN, times=1),
    "stumble-in-an-upload": Case(UPLOAD, DropUpload(after_bytes=3_000_000), PUBLISHED, times=2),
    "stumble-at-the-commit": Case(COMMIT, Refuse(504), PUBLISHED, times=1),
    "answer-lost": Case(COMMIT, DropAnswer(), PUBLISHED, times=1),
    "every-answer-lost": Case(COMMIT, DropAnswer(), PUBLISHED),
    "down-at-the-check": Case(TREE, Refuse(500), "was published, but cannot be checked", skip=1),
}
OLD = {"README.md": b"---\nlicense: mit\ntags: [m2c]\n---\n", "old.safetensors": b"old", "model.safetensors": b"older"}
NEXT, FIRST = [name for name in CASES if CASES[name].is_next], [f"first-{name}" for name in CASES if CASES[name].is_first]
OVERTAKEN_RUNS = ("overtaken", "overtaken-and-refused")


def case_of(name: str) -> Case | None:
    return CASES.get(name.removeprefix("first-"))


@dataclass
class Run:
    """What became of one repository: how the commands ended, and which commits were there before, between and after them."""

    failed: dict
    between: str | None
    repeated: dict
    before: str | None
    waits: list[float] = field(default_factory=list)


@pytest.fixture(scope="module")
def before(hub) -> dict[str, str | None]:
    """One repository for each case: with something old, by what is its commit, or none yet."""
    old = {name: hub.publish(f"ana/{name}", OLD).oid for name in ("interrupted", *OVERTAKEN_RUNS, *NEXT)}
    return {**old, **dict.fromkeys(FIRST)}


@pytest.fixture(scope="module")
def outcomes(hub, client, folders, before, tmp_path_factory) -> list:
    """Five steps for each case, all of them in one process, and a comparison."""
    process = tmp_path_factory.mktemp("process") / "id"
    hub.faults.add("PUT .*/ana/interrupted/", Interrupt(process))
    for name in OVERTAKEN_RUNS:
        hub.faults.add(f"PUT .*/ana/{name}/", Overtake(hub.repository(f"ana/{name}")))
    hub.faults.add("POST .*/ana/overtaken-and-refused/commit", Refuse(504))
    steps = []
    for name in before:
        case = case_of(name)
        publishing = partial(publish, arguments=[folders["base"], f"ana/{name}"], probes=False)
        looking = partial(head, repo_id=f"ana/{name}")
        if case is None:
            again = partial(publish, arguments=[folders["base"], f"ana/{name}", "--replace"], probes=False)
            steps += [partial(write_process_id, path=process), publishing, looking, looking, again]
        else:
            effect = {"kind": type(case.effect).__name__, **asdict(case.effect)}
            skip = case.skip_first if name in FIRST else case.skip
            fault = partial(plan_fault, requests=case.requests, effect=effect, times=case.times, skip=skip)
            steps += [fault, partial(publishing, patience=case.patience), looking, partial(clear_faults), publishing]
    comparison = partial(compare, folder=folders["base"], repo_id="ana/refused", revision=before["refused"])
    # Of its requests the client then says all that it says of any.
    outcomes = replace(client, variables={"HF_DEBUG": "1"}).session(*steps, comparison)
    assert not [outcome for outcome in outcomes if outcome.error], outcomes[0].output
    return outcomes


@pytest.fixture(scope="module")
def runs(outcomes, before) -> dict[str, Run]:
    runs = {}
    for index, name in enumerate(before):
        _, failed, between, _, repeated = outcomes[5 * index : 5 * index + 5]
        runs[name] = Run(failed.value, between.value, repeated.value, before[name], failed.waits)
    return runs


@pytest.fixture(scope="module")
def new(folders) -> dict[str, bytes]:
    """What a repository holds once it was published, but for what the Hub put there, and the card, in which its name stands."""
    return {path.name: path.read_bytes() for path in folders["base"].iterdir()}


@pytest.mark.parametrize("name", ["interrupted", *NEXT, *FIRST])
def test_the_old_one_or_the_new_one(hub, runs, new, name):
    repository, run = hub.repository(f"ana/{name}"), runs[name]
    files = repository.files()
    assert f"ana/{name}" in files.pop("README.md").decode() and files.pop(".gitattributes") and files == new
    first, *_ = repository.commits
    assert repository.at().parent == (run.before or first), "one commit, whatever happened"
    assert len(repository.commits) == (2 if run.before is None else 3)
    assert run.between in (run.before, None if run.before else first, repository.at().oid)
    assert run.repeated["code"] == 0 and PUBLISHED in run.repeated["said"]
    assert ("is there already" in run.repeated["said"]) == (run.between == repository.at().oid)


@pytest.mark.parametrize("name", [*NEXT, *FIRST])
def test_the_message(hub, runs, name):
    run, said = runs[name], case_of(name).said
    assert said in run.failed["said"]
    if said == PUBLISHED:
        assert run.failed["code"] == 0 and "error" not in run.failed["said"]
    else:
        *_, line = run.failed["said"].splitlines()
        assert run.failed["code"] == 1 and said in line and line.startswith("error: ") and len(line) < 500
    is_new = said in (PUBLISHED, CASES["down-at-the-check"].said)
    assert (run.between == hub.repository(f"ana/{name}").at().oid) == is_new
    is_made = run.before is None and run.between is not None and not is_new
    assert not is_made or "may be there now without any file" in run.failed["said"]


def test_ctrl_c(runs):
    assert runs["interrupted"].failed["code"] == 130 and "nothing is half published" in runs["interrupted"].failed["said"]
    assert runs["interrupted"].between == runs["interrupted"].before


@pytest.mark.parametrize("name", OVERTAKEN_RUNS)
def test_what_somebody_else_publishes_at_the_same_time_is_not_overwritten_unseen(hub, runs, new, name):
    """Also where the Hub fails just then, and the commit is tried again. What the other one removed is not ours any more."""
    run, repository = runs[name], hub.repository(f"ana/{name}")
    assert run.failed["code"] == 1 and OVERTAKEN in run.failed["said"]
    assert set(repository.files(run.between)) == {"other.txt"} and repository.at(run.between).parent == run.before
    assert "What is there, but not here, is removed:\n  other.txt\n" in run.repeated["said"] and run.repeated["code"] == 0
    assert repository.at().parent == run.between and repository.files().keys() == {"README.md", *new}


def test_waiting(runs):
    """The client waits between uploads, and where it does not ask again itself, we do so once."""
    assert runs["stumble-in-an-upload"].waits == [1, 2] and runs["stumble-at-the-commit"].waits == [5]
    assert runs["down-at-the-commit"].waits == [5] and runs["refused"].waits == []
    assert runs["down-at-uploads"].waits == runs["silent-at-uploads"].waits == [1, 2, 4, 8, 8]


def test_what_arrived_is_not_sent_twice(hub, runs):
    """By a client that has the patience to hear of it."""
    for name in runs:
        case, arrived = case_of(name), [record.status for record in hub.requests(f"PUT .*/ana/{name}/")].count(200)
        assert arrived == 1 or (case and case.patience < 1 < arrived), name


def test_files_that_differ_are_found(outcomes, new):
    """Those that are other, there alone, or here alone; not the file that every repository has from the Hub."""
    assert outcomes[-1].value == sorted({*OLD, *new})


def test_no_token_is_ever_said(hub, tokens, runs, outcomes):
    """Also where the client was asked to say all that it does."""
    assert "Request " in outcomes[0].output and "curl -X POST" in outcomes[0].output
    published = {content for name in runs for content in hub.repository(f"ana/{name}").files().values()}
    said = repr(outcomes).encode() + repr(hub.requests()).encode()
    assert not any(token.encode() in content for token in tokens.values() for content in (said, *published))
