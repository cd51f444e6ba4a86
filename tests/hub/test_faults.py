"""Under every fault a repository is the old one or the new one. What the official clients make of each is written down here."""

from dataclasses import asdict, replace
from functools import partial
from hashlib import sha256

import pytest

from .faults import CorruptAnswer, CorruptUpload, DropAnswer, DropUpload, Effect, Refuse, Stall
from .storage import Repository
from .user_code import clear_faults, fetch_file, head, plan_fault, push, read_log, whoami


PREUPLOAD, BATCH, UPLOAD, COMMIT = "POST .*/preupload/", "POST .*/objects/batch", "PUT /objects/", "POST .*/commit/"


def fault(requests: str, effect: Effect, times: int | None = 1) -> partial:
    """A step of a session: from here on this goes wrong."""
    return partial(plan_fault, requests=requests, effect={"kind": type(effect).__name__, **asdict(effect)}, times=times)


@pytest.fixture
def old(hub, files) -> Repository:
    """`ana/m2c` before the push that is disturbed."""
    hub.publish("ana/m2c", files)
    return hub.repository("ana/m2c")


@pytest.fixture
def new(old, files, folder) -> dict[str, bytes]:
    """What is pushed: a text file and weights are changed, which makes one upload to the object storage."""
    changes = {"config.json": b'{"version": 2}', "model.safetensors": files["model.safetensors"][::-1]}
    for path, content in changes.items():
        (folder / path).write_bytes(content)
    return {**old.files(), **changes}


@pytest.mark.parametrize(
    ("requests", "effect", "times", "waits"),
    [
        (BATCH, Refuse(429, retry_after=7), 1, [8]),
        (UPLOAD, Refuse(500), 3, [1, 2, 4]),
        (UPLOAD, DropUpload(after_bytes=3_000_000), 2, [1, 2]),
        (UPLOAD, Stall(seconds=0.2), 1, [1]),
        (UPLOAD, DropAnswer(), 1, [1]),
    ],
    ids=str,
)
def test_the_client_tries_again(hub, client, old, new, folder, requests, effect, times, waits):
    hub.faults.add(requests, effect, times=times)
    outcome = client.attempt(push, folder=folder, repo_id="ana/m2c")
    assert outcome.error is None and outcome.waits == waits
    assert old.files() == new and len(old.commits) == 3


@pytest.mark.parametrize(
    ("requests", "effect", "times", "error"),
    [
        (PREUPLOAD, Refuse(500), None, "HfHubHTTPError"),
        (PREUPLOAD, Refuse(401), 1, "HfHubHTTPError"),
        (BATCH, Refuse(403), 1, "HfHubHTTPError"),
        (UPLOAD, Refuse(500), None, "RuntimeError"),
        (UPLOAD, DropUpload(after_bytes=3_000_000), None, "RuntimeError"),
        (UPLOAD, CorruptUpload(), 1, "RuntimeError"),
        (COMMIT, Refuse(500), 1, "HfHubHTTPError"),
        (COMMIT, Refuse(429, retry_after=7), 1, "HfHubHTTPError"),
        (COMMIT, Refuse(404, code="RepoNotFound"), 1, "RepositoryNotFoundError"),
        (COMMIT, DropUpload(after_bytes=100), 1, "RemoteProtocolError"),
        (COMMIT, Stall(seconds=0.2), 1, "RemoteProtocolError"),
    ],
    ids=str,
)
def test_a_push_that_fails_leaves_the_old_and_can_be_repeated(hub, client, old, new, folder, requests, effect, times, error):
    published = old.at().oid
    pushing = partial(push, folder=folder, repo_id="ana/m2c")
    hub.faults.add(requests, effect, times=times)
    failed, between, _, repeated = client.session(pushing, partial(head, repo_id="ana/m2c"), partial(clear_faults), pushing)
    assert failed.error == error and between.value == published
    assert repeated.value[0] == old.at().oid and old.at().parent == published
    assert old.files() == new and len(old.commits) == 3
    # What arrived as a whole is kept for the repetition, and only that.
    assert [record.status for record in hub.requests(UPLOAD)].count(200) == 1


def test_a_commit_whose_answer_is_lost_is_not_made_twice(hub, client, old, new, folder):
    pushing = partial(push, folder=folder, repo_id="ana/m2c")
    hub.faults.add(COMMIT, DropAnswer())
    failed, between, repeated = client.session(pushing, partial(head, repo_id="ana/m2c"), pushing)
    assert failed.error == "RemoteProtocolError"
    assert between.value == repeated.value[0] == old.at().oid
    assert old.files() == new and len(old.commits) == 3


def test_a_broken_download_is_resumed(hub, client):
    content = bytes(range(256)) * 50_000
    hub.publish("ana/m2c", {"model.safetensors": content})
    hub.faults.add("GET /objects/", DropAnswer(after_bytes=11_000_000))
    outcome = client.attempt(fetch_file, repo_id="ana/m2c", filename="model.safetensors")
    assert outcome.value == sha256(content).hexdigest() and outcome.waits == [1]
    assert [record.status for record in hub.requests("GET /objects/")] == [200, 206]


def verify(repo_id):
    from huggingface_hub import HfApi

    return [mismatch["path"] for mismatch in HfApi().verify_repo_checksums(repo_id).mismatches]


def test_only_checksums_find_a_wrong_download(hub, client, files):
    """The client itself compares sizes."""
    hub.publish("ana/m2c", files)
    hub.faults.add("GET /objects/", CorruptAnswer())
    fetched, found = client.session(
        partial(fetch_file, repo_id="ana/m2c", filename="model.safetensors"), partial(verify, repo_id="ana/m2c")
    )
    assert fetched.error is None and fetched.value != sha256(files["model.safetensors"]).hexdigest()
    assert found.value == ["model.safetensors"]


def test_while_the_hub_is_down_the_cache_serves(hub, client, files):
    """Unless the connection is lost in the middle: that error goes through to the user."""
    hub.publish("ana/m2c", files)
    down = [(Refuse(500), None), (Refuse(429), None), (Stall(seconds=30), None), (DropAnswer(), "RemoteProtocolError")]
    fetching = partial(fetch_file, repo_id="ana/m2c", filename="config.json")
    _, empty, _, filled, *outcomes = replace(client, variables={"HF_HUB_ETAG_TIMEOUT": "2"}).session(
        *(fault("HEAD", Refuse(500), times=None), fetching, partial(clear_faults), fetching),
        *(step for effect, _ in down for step in (fault("HEAD", effect, times=None), fetching, partial(clear_faults))),
    )
    assert empty.error == "LocalEntryNotFoundError" and empty.waits == [1, 2, 4, 8, 8]
    assert filled.value == sha256(files["config.json"]).hexdigest()
    served = outcomes[1::3]
    assert [outcome.error for outcome in served] == [error for _, error in down]
    assert {outcome.value for outcome in served} == {filled.value, None}


def test_refusals_have_their_names(hub, client, files):
    hub.publish("ana/m2c", files)
    refusals = [
        (Refuse(401, message="Invalid credentials in Authorization header"), "HfHubHTTPError"),
        (Refuse(401, code="RepoNotFound"), "RepositoryNotFoundError"),
        (Refuse(403, code="GatedRepo"), "GatedRepoError"),
        (Refuse(404, code="RepoNotFound"), "RepositoryNotFoundError"),
        (Refuse(404, code="EntryNotFound"), "RemoteEntryNotFoundError"),
    ]
    fetching = partial(fetch_file, repo_id="ana/m2c", filename="config.json")
    steps = [step for refusal, _ in refusals for step in (fault("resolve", refusal, None), fetching, partial(clear_faults))]
    assert [outcome.error for outcome in client.session(*steps)[1::3]] == [error for _, error in refusals]


def test_another_process_plans_faults_and_reads_the_log(hub, client):
    _, refused, answered, log = client.session(
        fault("whoami", Refuse(503)), partial(whoami), partial(whoami), partial(read_log)
    )
    assert refused.error == "HfHubHTTPError" and answered.value == "ana"
    path = "/api/whoami-v2"
    assert log.value == [{"method": "GET", "path": path, "status": status, "token_sent": True} for status in (503, 200)]
