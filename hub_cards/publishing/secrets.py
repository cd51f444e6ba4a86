"""Tokens and keys: finds them in what is to be sent, and keeps them out of what is said."""

import mmap
import os
import re

from huggingface_hub import get_token


# Each begins with fixed letters, which makes a search through gigabytes fast; what may not stand before them comes after them.
FORMS = {
    "a token of the Hub": rb"hf_[A-Za-z0-9]{30,}",
    "a token of an organisation on the Hub": rb"api_org_[A-Za-z0-9]{30,}",
    "a private key": rb"-----BEGIN [A-Z ]*PRIVATE KEY-----",
    "a key of Amazon Web Services": rb"A(?:KIA|SIA)[A-Z0-9]{16}(?![A-Za-z0-9])",
    "a key of OpenAI or Anthropic": rb"sk-(?<!\wsk-)(?:(?:proj|svcacct|admin|ant)-[A-Za-z0-9_-]{20,}|[A-Za-z0-9]{40,})",
    "a token of GitHub": rb"g(?:h[pousr]_[A-Za-z0-9]{36,}|ithub_pat_[A-Za-z0-9_]{22,})",
}
NAMES_OF_SECRETS = re.compile(r"(?:TOKEN|SECRET|PASSWORD|KEY)$")
# Shorter values of the environment are words that may stand anywhere.
SHORTEST = 16


def find_secrets(content: bytes | mmap.mmap) -> list[str]:
    """What kinds of secrets are in there: known by their form, or because they are those of whoever runs this."""
    return [name for name, pattern in _patterns().items() if pattern.search(content)]


def without_secrets(text: str) -> str:
    """The same with stars for every secret."""
    content = text.encode("utf-8", "replace")
    for pattern in _patterns().values():
        content = pattern.sub(b"***", content)
    return content.decode("utf-8", "replace")


def _patterns() -> dict[str, re.Pattern[bytes]]:
    own = {value: f"your {name}" for name, value in os.environ.items() if NAMES_OF_SECRETS.search(name)}
    own[get_token() or ""] = "your token of the Hub"
    exact = {name: re.escape(os.fsencode(value)) for value, name in own.items() if len(value) >= SHORTEST}
    return {name: re.compile(pattern) for name, pattern in {**FORMS, **exact}.items()}
