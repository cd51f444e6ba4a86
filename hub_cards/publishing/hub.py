"""Sends a folder to the Hub as one commit: the repository holds what it held before, or exactly the new files."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from huggingface_hub import (
    CommitOperationAdd,
    CommitOperationDelete,
    DatasetInfo,
    HfApi,
    ModelInfo,
    RepoCard,
    SpaceInfo,
    hf_hub_url,
)
from huggingface_hub.constants import HF_HUB_DISABLE_PROGRESS_BARS
from huggingface_hub.errors import HTTPError, RepositoryNotFoundError
from huggingface_hub.utils import (
    are_progress_bars_disabled,
    build_hf_headers,
    disable_progress_bars,
    enable_progress_bars,
    get_session,
    hf_raise_for_status,
)

from hub_cards.model_card import OUR_TAG
from hub_cards.signature import is_handwritten

from .failures import OVERTAKEN, failing_as, status_of


RepoType = Literal["model", "dataset", "space"]
# Every repository has this file from the Hub.
GIT_ATTRIBUTES = ".gitattributes"
CARD = "README.md"
# Seconds without a sign of the Hub, and before a second attempt.
PATIENCE = 100.0
PAUSE = 5.0
AGAIN = "The repository holds what it held before, or all of the new. Run the same command again: what has arrived stays there"
AGAIN_AS_PR = "Look whether the pull request is there; if it is not, run the same command again: what has arrived stays there"
MADE = "could not be published, and may be there now without any file"


@dataclass(frozen=True)
class Destination:
    """Where to send a folder, and how.

    Args:
        repo_id: `"user/name"`.
        repo_type: what it is.
        private: of a repository that is made; one that is there must be so.
        create_pr: open a pull request instead, in a repository that is there.
    """

    repo_id: str
    repo_type: RepoType
    private: bool = False
    create_pr: bool = False


@dataclass(frozen=True)
class Present:
    """What a repository holds before anything is sent.

    Args:
        head: its last commit; `None` where there is no repository.
        files: their names.
        is_ours: whether its card says that it was made with this package.
        is_card_handwritten: whether somebody wrote that card, or changed it.
    """

    head: str | None = None
    files: frozenset[str] = frozenset()
    is_ours: bool = True
    is_card_handwritten: bool = False


@dataclass(frozen=True)
class Published:
    """Args:
    url: of the repository, or of the pull request.
    revision: the commit.
    is_new: whether there was anything to send.
    """

    url: str
    revision: str
    is_new: bool


def look_up(destination: Destination) -> Present:
    """What is there now. Raises `OSError` if nothing may be sent there, or the Hub cannot be asked."""
    api, repo_id = HfApi(), destination.repo_id
    with failing_as(_title(destination), repo_id, AGAIN), _patience():
        try:
            info = _information(api, destination)
        except RepositoryNotFoundError:
            if destination.create_pr:
                raise
            return Present()
        if destination.private and not info.private:
            raise OSError(f"{repo_id} is there already, and public; publish without --private, or under another name")
        files = frozenset(api.list_repo_files(repo_id, repo_type=destination.repo_type, revision=info.sha)) - {GIT_ATTRIBUTES}
        is_card_handwritten = CARD in files and is_handwritten(_read(destination, CARD, info.sha))
    return Present(info.sha, files, OUR_TAG in (info.tags or []), is_card_handwritten)


def check_card(folder: Path, destination: Destination) -> None:
    """Raises `OSError` if the Hub refuses the metadata of the card, which it tells before there is a repository."""
    with failing_as(_title(destination), destination.repo_id, AGAIN), _patience():
        RepoCard.load(folder / CARD).validate(destination.repo_type)


def send(folder: Path, destination: Destination, present: Present, message: str) -> Published:
    """Makes the repository, if there is none, and replaces its files by those of the folder; or proposes that.

    Args:
        folder: all that the repository will hold.
        destination: where to.
        present: what is there, from [`look_up`]. What somebody else has published since then is never overwritten.
        message: of the commit.

    Raises:
        OSError: if the Hub refuses or cannot be reached. The message says why and what to do, and holds no secret.
    """
    api, repo_id, is_made = HfApi(), destination.repo_id, present.head is None
    title = f"{repo_id} {MADE}" if is_made else _title(destination)
    with failing_as(title, repo_id, AGAIN_AS_PR if destination.create_pr else AGAIN), _patience(), _progress_bars():
        if is_made:
            _create(api, destination)
        head = _information(api, destination).sha if is_made else present.head
        deletions = sorted(present.files - names_in(folder))
        try:
            return _commit(api, folder, destination, head, deletions, message)
        except HTTPError as error:
            status = status_of(error)
            if destination.create_pr or (status is not None and status < 500):
                raise
            # The commit may be there, and its answer lost.
            time.sleep(PAUSE)
            now = _information(api, destination).sha
            if now == head:
                return _commit(api, folder, destination, head, deletions, message)
            if _differing(api, folder, destination, now):
                raise OSError(f"{_title(destination)}: {OVERTAKEN}") from None
            return Published(_address(api, destination), now, True)


def differing_files(folder: Path, destination: Destination, revision: str) -> list[str]:
    """Files by which a revision on the Hub differs from a folder, by the checksums that the Hub has.

    Raises:
        OSError: if the Hub cannot be asked.
    """
    repo_id = destination.repo_id
    with failing_as(f"{repo_id} was published, but cannot be checked", repo_id, AGAIN), _patience():
        return _differing(HfApi(), folder, destination, revision)


def names_in(folder: Path) -> frozenset[str]:
    """Files of a folder as a repository names them."""
    return frozenset(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def _title(destination: Destination) -> str:
    return f"{destination.repo_id} could not be published"


def _create(api: HfApi, destination: Destination) -> None:
    sdk = "gradio" if destination.repo_type == "space" else None
    # None leaves it to the settings of an organisation.
    private = destination.private or None
    api.create_repo(destination.repo_id, repo_type=destination.repo_type, private=private, space_sdk=sdk)


def _commit(api: HfApi, folder: Path, destination: Destination, head: str, deletions: list[str], message: str) -> Published:
    commit = api.create_commit(
        destination.repo_id,
        [
            *(CommitOperationAdd(name, folder / name) for name in sorted(names_in(folder))),
            *(CommitOperationDelete(name, is_folder=False) for name in deletions),
        ],
        commit_message=message,
        repo_type=destination.repo_type,
        create_pr=destination.create_pr,
        parent_commit=head,
    )
    return Published(commit.pr_url or _address(api, destination), commit.oid, commit.oid != head)


def _differing(api: HfApi, folder: Path, destination: Destination, revision: str) -> list[str]:
    repo_id, repo_type = destination.repo_id, destination.repo_type
    found = api.verify_repo_checksums(repo_id, repo_type=repo_type, revision=revision, local_dir=folder)
    names = {mismatch["path"] for mismatch in found.mismatches} | {*found.missing_paths, *found.extra_paths}
    return sorted(names - {GIT_ATTRIBUTES})


def _information(api: HfApi, destination: Destination) -> ModelInfo | DatasetInfo | SpaceInfo:
    # This call of the client goes past the patience of its session.
    return api.repo_info(destination.repo_id, repo_type=destination.repo_type, timeout=PATIENCE)


def _read(destination: Destination, name: str, revision: str) -> str:
    address = hf_hub_url(destination.repo_id, name, repo_type=destination.repo_type, revision=revision)
    response = get_session().get(address, headers=build_hf_headers())
    hf_raise_for_status(response)
    return response.content.decode("utf-8", "replace")


def _address(api: HfApi, destination: Destination) -> str:
    folder = "" if destination.repo_type == "model" else f"{destination.repo_type}s/"
    return f"{api.endpoint}/{folder}{destination.repo_id}"


@contextmanager
def _patience() -> Iterator[None]:
    """A Hub that falls silent is a failure; the client would wait for ever."""
    session = get_session()
    before, session.timeout = session.timeout, PATIENCE
    try:
        yield
    finally:
        session.timeout = before


@contextmanager
def _progress_bars() -> Iterator[None]:
    """Bars of an upload are wanted, also where those of reading and writing files are not."""
    are_hidden = are_progress_bars_disabled() and not HF_HUB_DISABLE_PROGRESS_BARS
    if are_hidden:
        enable_progress_bars()
    try:
        yield
    finally:
        if are_hidden:
            disable_progress_bars()
