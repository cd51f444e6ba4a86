"""Where a chat server is, and the token that belongs there."""

import os
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

from huggingface_hub import get_token


_HUGGING_FACE = (".huggingface.co", ".huggingface.cloud")


@dataclass(frozen=True)
class ServerAddress:
    """A server by its URL, or an inference provider by its name.

    Attributes:
        place: what to call it in a message; never with a password.
        url: `None` of a provider.
        provider: `None` of a URL.
        token: `None` if there is none.
        secrets: what may be in no message.
    """

    place: str
    url: str | None
    provider: str | None
    token: str | None
    secrets: tuple[str, ...]

    @classmethod
    def parse(cls, server: str) -> "ServerAddress":
        """Finds out what `server` is.

        Raises:
            ValueError: if it is neither a URL nor the name of a provider, or there is no token for the provider.
        """
        address = urlsplit(server)
        if address.scheme in ("http", "https") and address.hostname:
            return cls._of_url(server)
        if not server.replace("-", "").isalnum():
            raise ValueError(
                f"{server.rpartition('@')[2]!r} is no server; give its URL, such as http://localhost:8000/v1, or the name of "
                "an inference provider, such as auto"
            )
        token = _openai_token() if server == "openai" else get_token()
        if token is None:
            variable = "OPENAI_API_KEY" if server == "openai" else "HF_TOKEN"
            raise ValueError(f"the provider {server} needs a token; set {variable}")
        return cls(f"the provider {server}", None, server, token, (token,))

    @classmethod
    def _of_url(cls, url: str) -> "ServerAddress":
        address = urlsplit(url)
        # The token of Hugging Face goes to Hugging Face alone.
        token = get_token() if address.hostname.endswith(_HUGGING_FACE) else _openai_token()
        password = address.password or ""
        secrets = tuple(secret for secret in (token, password, unquote(password)) if secret)
        return cls(address.netloc.rpartition("@")[2], url, None, token, secrets)


def _openai_token() -> str | None:
    return os.environ.get("OPENAI_API_KEY", "").strip() or None
