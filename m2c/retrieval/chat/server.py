"""Chat models on an OpenAI-compatible server (vLLM, TGI, Ollama, llama.cpp ...) or behind Inference Providers."""

import json
import logging
import random
import threading
import time
from collections.abc import Iterator, Sequence
from hashlib import sha256
from pathlib import PurePath

from huggingface_hub import InferenceClient
from huggingface_hub.errors import HfHubHTTPError, HTTPError, InferenceTimeoutError, OfflineModeIsEnabled

from .chat import Failure, Request
from .hand_over import HandOver
from .openai_messages import arguments, reply_of
from .server_address import ServerAddress
from .server_errors import LastingError, PassingError, RefusedRequest, error_of, nobody_listens


TRIES = 6
# Seconds. Before each further try the wait doubles, up to the longest.
FIRST_WAIT, LONGEST_WAIT = 1.0, 60.0
# Seconds. Who asks for more than this has none left for today; what takes more than the other is announced.
LONGEST_RETRY_AFTER, ANNOUNCED_RETRY_AFTER = 600.0, 10.0
# After so many requests in a row without any answer the server is taken to be down.
GIVE_UP_AFTER = 20

logger = logging.getLogger(__name__)


class ServerChat:
    """A [`~m2c.retrieval.chat.ChatModel`] on a server, asked several things at once.

    What may pass is tried again with exponential back-off and jitter: status 408, 409, 425, 429 and 5xx, timeouts, lost
    connections, malformed answers. If the server says how long to wait, all wait.

    No more replies than `concurrency` wait to be taken and kept: if the process is killed, no others are lost.

    The token is that of `OPENAI_API_KEY` for a URL and for OpenAI, and that of `HF_TOKEN` or `hf auth login` for the other
    providers and for endpoints of Hugging Face: neither goes where it does not belong.

    Args:
        model: its name on the server.
        server: the URL, with or without `/v1`, or the name of an inference provider, such as `"auto"`.
        concurrency: requests at once, of all iterators together.
        timeout: seconds without a sign of the server after which a call is given up.

    Raises:
        ValueError: if `server` is neither, or there is no token for a provider.
    """

    def __init__(self, model: str, server: str, concurrency: int = 8, timeout: float = 300.0):
        self.model, self.concurrency, self.timeout = model, concurrency, timeout
        self.address = ServerAddress.parse(server)
        # Without a token the client would send that of Hugging Face.
        self.client = InferenceClient(
            base_url=self.address.url, provider=self.address.provider, token=self.address.token or "none", timeout=timeout
        )
        self.identity = {"kind": "server", "model": _public_name(model), "revision": None, "provider": self.address.provider}
        self._slots = threading.BoundedSemaphore(concurrency)
        self._open_again = 0.0
        self._answers = self._unanswered = 0

    def replies(self, requests: Sequence[Request]) -> Iterator[list[tuple[int, str | Failure]]]:
        """See [`~m2c.retrieval.chat.ChatModel`]. No call is started once the iterator is closed or has raised.

        Raises:
            ValueError: if the server refuses the token or does not know the model.
            OSError: if nobody listens there, the server is down, or it asks for a wait of more than ten minutes.
        """
        work = HandOver(requests)
        # Daemons, as an interrupted process should not wait for what it has asked.
        threads = [
            threading.Thread(target=self._work, args=(work,), daemon=True) for _ in range(min(self.concurrency, len(requests)))
        ]
        try:
            for thread in threads:
                thread.start()
            left = len(requests)
            while left:
                replies, error = work.arrived()
                if error is not None:
                    logger.warning("%s: waiting for what is under way, and then it ends", self.address.place)
                    work.end(len(threads))
                    for thread in threads:
                        thread.join()
                    yield replies + work.arrived_by_now()[0]
                    raise error
                yield replies
                left -= len(replies)
                work.kept(len(replies))
        finally:
            work.end(len(threads))

    def _work(self, work: HandOver) -> None:
        while (position := work.next()) is not None:
            try:
                reply = self._ask(work.requests[position], work.stop)
            except Exception as error:
                work.stop.set()
                reply = error
            if reply is not None:
                work.hand_over(position, reply)

    def _ask(self, request: Request, stop: threading.Event) -> str | Failure | None:
        """Asks until there is a reply, or a reason why there is none; `None` if it was stopped before."""
        tries, answers = 0, self._answers
        while self._may_call(stop):
            try:
                with self._slots:
                    reply = self._call(request)
            except RefusedRequest as error:
                return Failure(f"refused with {error}")
            except LastingError as error:
                raise ValueError(f"{self.address.place} does not answer for {self.model!r}: {error}") from None
            except PassingError as error:
                # As long as others get through, a limited rate is no failure, however often it is met.
                limited = error.wait is not None and self._answers > answers
                tries, answers = 0 if limited else tries + 1, self._answers
                if tries == TRIES:
                    return self._unanswered_request(error)
                self._back_off(error, tries, stop)
            else:
                self._answers += 1
                self._unanswered = 0
                return reply
        return None

    def _call(self, request: Request) -> str | Failure:
        asked = arguments(request)
        try:
            completion = self.client.chat_completion(model=self.model, **asked)
        except OfflineModeIsEnabled:
            raise LastingError("HF_HUB_OFFLINE forbids to ask any server; unset it") from None
        except HfHubHTTPError as error:
            raise error_of(error.response, self.address.secrets) from None
        except InferenceTimeoutError:
            raise PassingError(f"no sign of the server within {self.timeout:g} seconds") from None
        except HTTPError as error:
            if nobody_listens(error) and not self._answers:
                raise OSError(f"nobody listens at {self.address.place}; start the server, or check the address") from None
            raise PassingError(f"lost connection ({type(error).__name__})") from None
        except ValueError as error:
            # Nothing of a URL can be wrong any more, but a provider may not exist, or not have the model.
            if self.address.provider and not isinstance(error, (json.JSONDecodeError, UnicodeDecodeError)):
                raise LastingError(str(error)) from None
            raise PassingError("malformed answer") from None
        try:
            return reply_of(completion, request.max_new_tokens)
        except ValueError as error:
            raise PassingError(f"malformed answer: {error}") from None

    def _may_call(self, stop: threading.Event) -> bool:
        """Waits for as long as the server asked for; `False` if it was stopped."""
        while (left := self._open_again - time.monotonic()) > 0 and not stop.wait(left):
            pass
        return not stop.is_set()

    def _back_off(self, error: PassingError, tries: int, stop: threading.Event) -> None:
        if error.wait is not None:
            if error.wait > LONGEST_RETRY_AFTER:
                raise OSError(f"{self.address.place} asks to wait {error.wait:.0f} seconds ({error}); start again after that")
            if error.wait > ANNOUNCED_RETRY_AFTER:
                logger.warning("%s asks to wait %.0f seconds (%s)", self.address.place, error.wait, error)
            self._open_again = max(self._open_again, time.monotonic() + error.wait)
        stop.wait(min(LONGEST_WAIT, FIRST_WAIT * 2 ** (tries - 1)) * random.uniform(0.5, 1))

    def _unanswered_request(self, error: PassingError) -> Failure:
        self._unanswered += 1
        if self._unanswered >= GIVE_UP_AFTER:
            raise OSError(
                f"{self.address.place} has answered none of {self._unanswered} requests in a row, the last one with {error}; "
                "see what is wrong with the server, and start again"
            )
        return Failure(f"no answer in {TRIES} tries, in the last one {error}")


def _public_name(model: str) -> str:
    """Of a server that was started on a folder, the model's name is a path there: its last part, and a hash of the whole."""
    if not PurePath(model).is_absolute():
        return model
    return f"{PurePath(model).name}-{sha256(model.encode()).hexdigest()[:8]}"
