"""Secrets are found whatever stands around them, and never said again; other text stays."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub_cards.publishing.secrets import find_secrets, without_secrets


LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
SECRETS = {
    "a token of the Hub": f"hf_{LETTERS[:34]}",
    "a token of an organisation on the Hub": f"api_org_{LETTERS[:34]}",
    "a private key": "-----BEGIN OPENSSH PRIVATE KEY-----",
    "a key of Amazon Web Services": "AKIAIOSFODNN7EXAMPLE",
    "a key of OpenAI or Anthropic": f"sk-proj-{LETTERS[:40]}",
    "a token of GitHub": f"github_pat_{LETTERS[:30]}",
}
SURROUNDINGS = st.tuples(st.text(), st.sampled_from(" \t\n\"'=:,;({[<>`@&#|"))


@pytest.mark.parametrize("kind", SECRETS)
@given(before=SURROUNDINGS, after=SURROUNDINGS)
def test_secrets_in_any_text(kind, before, after):
    text = f"{''.join(before)}{SECRETS[kind]}{''.join(reversed(after))}"
    assert kind in find_secrets(text.encode("utf-8", "replace"))
    said = without_secrets(text)
    assert SECRETS[kind] not in said and "***" in said


@pytest.mark.parametrize(
    "text",
    [
        "the token hf_transfer, hf_hub_download(repo_id) and hf_XXXX",
        "sk-learn-compatible estimators of disk-project-with-a-very-long-name",
        "AKIA and ASIA are in ASIAPACIFICREGIONALHEADQUARTERS",
        "task-admin-assistant-of-the-whole-faculty",
        "-----BEGIN PUBLIC KEY-----",
        "da39a3ee5e6b4b0d3255bfef95601890afd80709",
        "",
    ],
)
def test_other_text_stays(text):
    assert not find_secrets(text.encode()) and without_secrets(text) == text


@pytest.mark.parametrize("name", ["HF_TOKEN", "WANDB_API_KEY", "SMTP_PASSWORD", "CLIENT_SECRET"])
def test_what_is_secret_to_this_machine(monkeypatch, name):
    """Whatever its form, even of a regular expression."""
    secret = "(my [very] own+secret?)*"
    monkeypatch.setenv(name, secret)
    assert find_secrets(f"x{secret}x".encode()) == ["your token of the Hub" if name == "HF_TOKEN" else f"your {name}"]
    assert without_secrets(f"a {secret} b") == "a *** b"
    monkeypatch.setenv(name, "short")
    assert without_secrets("it is short") == "it is short"
