"""Who may see and do what, and where the token goes."""

import urllib.request
from dataclasses import replace
from functools import partial
from hashlib import sha256
from urllib.error import HTTPError

import pytest

from .user_code import fetch, fetch_file, push, whoami


def test_a_token_says_who_one_is(client, stranger):
    assert client.run(whoami) == "ana"
    outcome = replace(stranger, token="hf_of_nobody").attempt(whoami)
    assert outcome.error == "HfHubHTTPError" and "The token from HF_TOKEN environment variable is invalid" in outcome.message


def test_a_private_repository_is_seen_by_its_owner_alone(hub, client, reader, stranger, files, folder):
    """Others are told what they are told of one that does not exist."""
    pushed, seen = client.session(
        partial(push, folder=folder, repo_id="ana/m2c", private=True), partial(fetch, repo_id="ana/m2c")
    )
    assert hub.repository("ana/m2c").private and pushed.value[0] == hub.repository("ana/m2c").at().oid
    assert seen.value["config.json"] == sha256(files["config.json"]).hexdigest()
    calls = [partial(fetch, repo_id=repo_id) for repo_id in ("ana/m2c", "ana/no")]
    calls.append(partial(fetch_file, repo_id="ana/m2c", filename="model.safetensors"))
    for other, status in ((reader, "404"), (stranger, "401")):
        hidden, missing, file = other.session(*calls)
        assert hidden.error == missing.error == file.error == "RepositoryNotFoundError"
        assert hidden.message == missing.message.replace("ana/no", "ana/m2c") and status in hidden.message


def test_only_the_owner_writes(hub, reader, stranger, files, folder):
    published = hub.publish("ana/m2c", files)
    (folder / "config.json").write_text("not mine")
    calls = [partial(push, folder=folder, repo_id=repo_id) for repo_id in ("ana/m2c", "ana/new")]
    calls.append(partial(push, folder=folder, repo_id="ana/m2c", create_pr=False))
    for other, status in ((reader, "403 Forbidden"), (stranger, "401 Unauthorized")):
        outcomes = other.session(*calls)
        assert all(outcome.error == "HfHubHTTPError" and status in outcome.message for outcome in outcomes)
    assert hub.repository("ana/m2c").at() == published and hub.find("model", "ana/new") is None


def test_the_token_goes_to_the_hub_and_nowhere_else(hub, token, client, folder):
    outcomes = client.session(
        partial(push, folder=folder, repo_id="ana/m2c", private=True),
        partial(fetch, repo_id="ana/m2c"),
        partial(fetch_file, repo_id="ana/m2c", filename="no.json"),
    )
    assert [outcome.error for outcome in outcomes] == [None, None, "RemoteEntryNotFoundError"]
    assert all(record.token_sent for record in hub.requests(" /(?!objects/)"))
    storage = hub.requests(" /objects/")
    assert {record.method for record in storage} == {"PUT", "GET"} and not any(record.token_sent for record in storage)
    assert token not in repr(hub.requests()) + repr(outcomes)
    # The storage refuses who brings it a token.
    request = urllib.request.Request(hub.storage_url + storage[0].path, headers={"Authorization": f"Bearer {token}"})
    with pytest.raises(HTTPError, match="400"):
        urllib.request.urlopen(request)
