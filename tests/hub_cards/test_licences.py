"""A licence is stated where it is known, and only there."""

import pytest
from huggingface_hub import ModelCard
from huggingface_hub.errors import HfHubHTTPError, HTTPError, LocalEntryNotFoundError

from hub_cards.licences import is_on_hub, licence_of


@pytest.fixture
def card_of(monkeypatch):
    """Makes the Hub answer with a card, or an error."""

    def answer(content):
        def load(name, **_):
            if isinstance(content, Exception):
                raise content
            return ModelCard(content, ignore_metadata_errors=True)

        monkeypatch.setattr(ModelCard, "load", load)

    return answer


def test_known_ones_need_no_hub(card_of):
    card_of(AssertionError("asked"))
    assert licence_of("scenes") == "apache-2.0"
    assert licence_of("laion/CLIP-ViT-bigG-14-laion2B-39B-b160k") == "mit"
    assert licence_of(None) is None and licence_of("my-clip") is None


@pytest.mark.parametrize(
    ("content", "licence"),
    [
        ("---\nlicense: cc-by-4.0\n---\n", "cc-by-4.0"),
        ("---\ntags: [vision]\n---\nWhat OpenAI's repositories say: nothing.", None),
        ("no metadata at all", None),
        ("---\nlicense: [mit, apache-2.0]\n---\n", None),
        ("---\nlicense: [mit\n---\n", None),
        (LocalEntryNotFoundError("offline"), None),
        (ConnectionError("no network"), None),
        (HTTPError("a connection that was lost in the middle"), None),
        (ValueError("metadata"), None),
    ],
)
def test_others_are_asked_for_their_card(card_of, content, licence):
    card_of(content)
    assert licence_of("openai/clip-vit-large-patch14") == licence


def test_the_errors_of_the_hub_are_those_that_are_caught():
    assert issubclass(HfHubHTTPError, OSError) and issubclass(LocalEntryNotFoundError, OSError)


def test_what_cannot_be_reached_is_not_stated():
    """This suite runs offline."""
    assert licence_of("openai/clip-vit-large-patch14") is None


def test_names_of_repositories():
    assert is_on_hub("openai/clip-vit-large-patch14")
    for name in ("stage1", "", None, "/home/me", "a/b/c", "a b/c", "https://x/y", "--/..", "x/\n"):
        assert not is_on_hub(name), name
