"""One Hub on this machine for all tests of a file, as processes that publish take seconds to start."""

import pytest

from ...hub.fresh_process import HubClient
from ...hub.server import LocalHub


@pytest.fixture(scope="module")
def hub():
    with LocalHub() as hub:
        yield hub
        assert not hub.errors


@pytest.fixture(scope="module")
def tokens(hub) -> dict[str, str]:
    return {name: hub.add_user(name) for name in ("ana", "ben")}


@pytest.fixture(scope="module")
def client(hub, tokens, tmp_path_factory) -> HubClient:
    """Ana at her machine."""
    return HubClient(hub, tmp_path_factory.mktemp("ana"), tokens["ana"])


@pytest.fixture(scope="module")
def stranger(hub, tmp_path_factory) -> HubClient:
    """Somebody without a token and without our packages."""
    return HubClient(hub, tmp_path_factory.mktemp("stranger"), has_our_packages=False)
