"""Sends a folder to the Hub as one commit: the repository holds what it held before, or exactly the new files."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, DatasetInfo, HfApi, ModelInfo, SpaceInfo
from huggingface_hub.errors import HTTPError
from huggingface_hub.utils import get_session

from .failures import FAILURES, explain, status_of


RepoType = Literal["model", "dataset", "space"]
# Every repository has this file from the Hub.
GIT_ATTRIBUTES = ".gitattributes"
# Seconds without a sign of the Hub, and before a second attempt.
PATIENCE = 100.0
PAUSE = 5.0
AGAIN = "The repository holds what it held before, or all of the new. Run the same command again: what has arrived stays there"
AGAIN_AS_PR = "Look whether the pull request is there; if it is not, run the same command again: what has arrived stays there"


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


def send(folder: Path, repo_id: str, repo_type: RepoType, private: bool, create_pr: bool, message: str) -> Published:
    """Makes the repository, if there is none, and replaces its files by those of the folder; or proposes that.

    Args:
        folder: all that the repository will hold.
        repo_id: `"user/name"`.
        repo_type: what it is.
        private: of a repository that is made.
        create_pr: open a pull request instead, in a repository that is there.
        message: of the commit.

    Raises:
        OSError: if the Hub refuses or cannot be reached. The message says why and what to do, and holds no secret.
    """
    api = HfApi()

    def commit() -> Published:
        return _commit(api, folder, repo_id, repo_type, create_pr, message)

    with _failing_as(f"{repo_id} could not be published", repo_id, AGAIN_AS_PR if create_pr else AGAIN), _patience():
        if not create_pr:
            sdk = "gradio" if repo_type == "space" else None
            # None leaves it to the settings of an organisation.
            api.create_repo(repo_id, repo_type=repo_type, private=private or None, space_sdk=sdk, exist_ok=True)
        if private and not _information(api, repo_id, repo_type).private:
            raise OSError(f"{repo_id} is there already, and public; publish without --private, or under another name")
        try:
            return commit()
        except HTTPError as error:
            status = status_of(error)
            if create_pr or (status is not None and status < 500):
                raise
            # The commit may be there, and its answer lost: then nothing is left to send.
            time.sleep(PAUSE)
            return commit()


def differing_files(folder: Path, repo_id: str, repo_type: RepoType, revision: str) -> list[str]:
    """Files by which a revision on the Hub differs from a folder, by the checksums that the Hub has.

    Raises:
        OSError: if the Hub cannot be asked.
    """
    with _failing_as(f"{repo_id} was published, but cannot be checked", repo_id, AGAIN), _patience():
        found = HfApi().verify_repo_checksums(repo_id, repo_type=repo_type, revision=revision, local_dir=folder)
    names = {mismatch["path"] for mismatch in found.mismatches} | {*found.missing_paths, *found.extra_paths}
    return sorted(names - {GIT_ATTRIBUTES})


def _commit(api: HfApi, folder: Path, repo_id: str, repo_type: RepoType, create_pr: bool, message: str) -> Published:
    parent = _information(api, repo_id, repo_type).sha
    old = set(api.list_repo_files(repo_id, repo_type=repo_type, revision=parent)) - {GIT_ATTRIBUTES}
    new = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}
    additions = [CommitOperationAdd(name, path) for name, path in new.items()]
    deletions = [CommitOperationDelete(name, is_folder=False) for name in sorted(old - new.keys())]
    commit = api.create_commit(
        repo_id,
        additions + deletions,
        commit_message=message,
        repo_type=repo_type,
        create_pr=create_pr,
        parent_commit=parent,
    )
    return Published(commit.pr_url or str(commit.repo_url), commit.oid, commit.oid != parent)


def _information(api: HfApi, repo_id: str, repo_type: RepoType) -> ModelInfo | DatasetInfo | SpaceInfo:
    # This call of the client goes past the patience of its session.
    return api.repo_info(repo_id, repo_type=repo_type, timeout=PATIENCE)


@contextmanager
def _failing_as(title: str, repo_id: str, again: str) -> Iterator[None]:
    """Failures of the client become an `OSError` in words of our own."""
    try:
        yield
    except FAILURES as error:
        raise OSError(f"{title}: {explain(error, repo_id, again)}") from None


@contextmanager
def _patience() -> Iterator[None]:
    """A Hub that falls silent is a failure; the client would wait for ever."""
    session = get_session()
    before, session.timeout = session.timeout, PATIENCE
    try:
        yield
    finally:
        session.timeout = before
