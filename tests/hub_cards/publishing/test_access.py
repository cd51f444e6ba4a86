"""Who may publish what: refusals say what to do and change nothing, and neither do pull requests and dry runs."""

from functools import partial

import pytest

from hub_cards import render_card

from .user_code import publish


UNKNOWN = f"hf_{34 * 'x'}"
# Who asks for what, and what is said.
REFUSED = {
    "not the owner": (
        "ben",
        ["ana/model", "--replace"],
        "your token may not do that (Authorization error.). Use one that may write to ana/",
    ),
    "a foreign name": ("ana", ["ben/model"], "or publish under your own name"),
    "without a token": ("", ["ana/new"], "Log in with `hf auth login`"),
    "unknown token": (UNKNOWN, ["ana/model"], "set HF_TOKEN to a token that is valid"),
    "a pull request to nowhere": ("ana", ["ana/none", "--create-pr"], "there is no such repository"),
    "public already": ("ana", ["ana/model", "--private"], "ana/model is there already, and public; publish without --private"),
    "unknown licence": ("ana", ["ana/new", "--licence", "mine"], '"license\\" must be one of'),
    "unknown licence, dry": ("ana", ["ana/new", "--licence", "mine", "--dry-run"], '"license\\" must be one of'),
    "made otherwise": ("ana", ["ana/model"], "ana/model holds files that were not published with m2c, and would be replaced."),
    "changed by hand": (
        "ana",
        ["ana/changed"],
        "the card of ana/changed was written or changed by hand, and would be replaced.",
    ),
    "changed by hand, dry": ("ana", ["ana/changed", "--dry-run"], "Keep what it says elsewhere, and add --replace"),
    "a card of one's own": ("ana", ["ana/own"], "the card of ana/own was written or changed by hand"),
    "made otherwise, dry": ("ana", ["ana/model", "--dry-run"], "Publish under another name, or add --replace"),
}
ALLOWED = {
    "replacing, dry": (
        "ana",
        ["ana/model", "--replace", "--dry-run"],
        "What is there, but not here, is removed:\n  old.txt\nThis was",
    ),
    "a card without words": ("ana", ["ana/card"], "Published: "),
    "a card of one's own, replaced": ("ana", ["ana/own", "--replace"], "Published: "),
    "changed by hand, proposed": ("ben", ["ana/changed", "--create-pr"], "Published: "),
    "dry run": ("ana", ["ana/dry", "--dry-run"], "This was a dry run: nothing was sent"),
    "private": ("ana", ["ana/private", "--private"], "Published: "),
    "private again": ("ana", ["ana/private", "--private"], "All of it is there already."),
    "pull request": ("ben", ["ana/model", "--create-pr"], "Published: "),
}


@pytest.fixture(scope="module")
def old(hub, folders) -> str:
    """The commit at which `ana/model` is."""
    hub.publish("ana/card", {"README.md": b"---\nlicense: mit\n---\n"})
    hub.publish("ana/own", {"README.md": b"---\nlicense: mit\n---\n# My model\n"})
    generated = str(render_card(folders["base"], "ana/changed", "mit"))
    hub.publish("ana/changed", {"README.md": generated.replace("## Limits", "## My own words").encode(), "config.json": b"{}"})
    return hub.publish("ana/model", {"README.md": b"---\nlicense: mit\n---\n", "old.txt": b"old"}).oid


@pytest.fixture(scope="module")
def outcomes(client, tokens, folders, old) -> dict:
    cases = {**REFUSED, **ALLOWED}
    calls = [
        partial(publish, arguments=[folders["base"], *arguments], token=tokens.get(who, who), probes=False)
        for who, arguments, _ in cases.values()
    ]
    outcomes = dict(zip(cases, client.session(*calls)))
    assert not [outcome for outcome in outcomes.values() if outcome.error], outcomes["not the owner"].output
    return outcomes


@pytest.mark.parametrize("case", REFUSED)
def test_refusals(outcomes, case):
    said = outcomes[case].value["said"].splitlines()
    assert outcomes[case].value["code"] == 1 and said[-1].startswith("error: ") and REFUSED[case][2] in said[-1]


@pytest.mark.parametrize("case", ALLOWED)
def test_what_is_allowed(outcomes, case):
    assert outcomes[case].value["code"] == 0 and ALLOWED[case][2] in outcomes[case].value["said"]


def test_nothing_else_changes(hub, outcomes, old):
    assert hub.repository("ana/model").at().oid == old
    assert b"My own words" in hub.repository("ana/changed").files()["README.md"]
    assert not [name for name in ("ben/model", "ana/none", "ana/dry", "ana/new") if hub.find("model", name)]
    private = hub.repository("ana/private")
    assert private.private and "model.safetensors" in private.files() and len(private.commits) == 2


def test_a_pull_request_proposes_all(hub, outcomes, old):
    said, repository = outcomes["pull request"].value["said"], hub.repository("ana/model")
    assert (
        "A pull request to the model ana/model:\n" in said and "What is there, but not here, is removed:\n  old.txt\n" in said
    )
    assert f"Published: {hub.url}/ana/model/discussions/1\nOnce it is merged:\nimport torch\n" in said
    proposed = repository.at("refs/pr/1")
    assert proposed.parent == old and "model.safetensors" in proposed.files and "old.txt" not in proposed.files


def test_no_token_is_ever_said(tokens, outcomes):
    assert not any(token in repr(outcomes) for token in (*tokens.values(), UNKNOWN))
