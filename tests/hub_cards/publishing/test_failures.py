"""Messages of failures that the Hub on this machine cannot be made to have; the others are seen in test_faults."""

from json import JSONDecodeError

import pytest
from huggingface_hub.errors import HTTPError, LocalTokenNotFoundError, OfflineModeIsEnabled

from hub_cards.publishing.failures import FAILURES, explain, reading_from_hub


TOKEN = "hf_" + 34 * "x"


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (OfflineModeIsEnabled(f"Cannot reach {TOKEN}"), "HF_HUB_OFFLINE is set. Unset it"),
        (LocalTokenNotFoundError("Token is required"), "there is no token. Log in with `hf auth login`, or set HF_TOKEN"),
        (JSONDecodeError("Expecting value", TOKEN, 0), "the Hub failed or could not be reached (JSONDecodeError). Again"),
        (HTTPError(f"silence of {TOKEN}"), "the Hub failed or could not be reached (HTTPError). Again"),
        (RuntimeError(f"Xet:\n{TOKEN} expired"), "Xet: *** expired (RuntimeError). Again"),
        (ValueError(f"LFS batch:\n{TOKEN}"), "the Hub refuses what was sent. LFS batch: ***"),
        (ValueError(400 * "a"), f"the Hub refuses what was sent. {300 * 'a'}"),
    ],
)
def test_messages(error, message):
    assert isinstance(error, FAILURES) and explain(error, "you/m2c", "Again") == message


def test_a_missing_file_is_no_failure_of_the_hub():
    assert not isinstance(FileNotFoundError("model.safetensors"), FAILURES)


def test_a_connection_that_is_lost_while_something_is_read():
    """It becomes an OSError, which commands report on one line; what is wrong in a file is said in that file's words."""
    with pytest.raises(OSError, match=r"did not arrive \(HTTPError\)\. Run the same command again"), reading_from_hub():
        raise HTTPError("Server disconnected without sending a response.")
    with pytest.raises(ValueError, match="broken"), reading_from_hub():
        raise ValueError("broken")
