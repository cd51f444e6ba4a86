"""What the local Hub keeps, in memory: users, repositories, commits, files."""

import hashlib
import json
import secrets
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from types import MappingProxyType

from .messages import HubError


# Files that git keeps as pointers, their content in the object storage; every new repository has them in `.gitattributes`.
LFS_SUFFIXES = (".arrow", ".bin", ".gz", ".npy", ".npz", ".onnx", ".parquet", ".pt", ".pth", ".safetensors", ".tar", ".zip")
GIT_ATTRIBUTES = "".join(f"*{suffix} filter=lfs diff=lfs merge=lfs -text\n" for suffix in LFS_SUFFIXES).encode()
MAX_REGULAR_SIZE = 10_000_000


def goes_to_storage(path: str, size: int, sample: bytes) -> bool:
    """Whether a file lies in the object storage: by its name, its size in bytes, or as its first bytes are no text."""
    return path.endswith(LFS_SUFFIXES) or size > MAX_REGULAR_SIZE or b"\0" in sample


@dataclass(frozen=True)
class Blob:
    """The content of a file; `lfs` says that it lies in the object storage."""

    content: bytes
    lfs: bool = False

    @cached_property
    def sha256(self) -> str:
        return hashlib.sha256(self.content).hexdigest()

    @cached_property
    def pointer(self) -> bytes:
        """What git keeps of a file of the object storage."""
        return f"version https://git-lfs.github.com/spec/v1\noid sha256:{self.sha256}\nsize {len(self.content)}\n".encode()

    @cached_property
    def git_oid(self) -> str:
        data = self.pointer if self.lfs else self.content
        return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()

    @property
    def etag(self) -> str:
        """Names the content: clients compare it with what they have, on disk or in their cache."""
        return self.sha256 if self.lfs else self.git_oid


@dataclass(frozen=True)
class Commit:
    oid: str
    parent: str | None
    title: str
    date: str
    files: Mapping[str, Blob]


@dataclass
class Repository:
    """A repository.

    Attributes:
        id: `owner/name`.
        type: `model`, `dataset` or `space`.
        refs: `main` and `refs/pr/N`, each with the id of its last commit.
        objects: by sha256, all that was uploaded to the object storage, in a commit or not yet.
    """

    id: str
    type: str
    private: bool = False
    sdk: str | None = None
    commits: dict[str, Commit] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)
    objects: dict[str, bytes] = field(default_factory=dict)

    def __post_init__(self):
        self.commit("main", {".gitattributes": Blob(GIT_ATTRIBUTES)}, "initial commit")

    @property
    def owner(self) -> str:
        return self.id.split("/")[0]

    @property
    def prefix(self) -> str:
        """What stands before the id in addresses that people see."""
        return "" if self.type == "model" else f"{self.type}s/"

    def at(self, revision: str = "main") -> Commit:
        """The commit that a branch, `refs/pr/N` or a commit id names."""
        commit = self.commits.get(self.refs.get(revision, revision))
        if commit is None:
            raise HubError(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return commit

    def files(self, revision: str = "main") -> dict[str, bytes]:
        """Everything that a revision holds, by path."""
        return {path: blob.content for path, blob in self.at(revision).files.items()}

    def commit(self, ref: str, files: Mapping[str, Blob], title: str, parent: str | None = None) -> Commit:
        """Makes `ref` name a new commit with exactly these files. Nobody sees any of them before all of them are there."""
        names = {path: blob.git_oid for path, blob in sorted(files.items())}
        date = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        # Two commits are never the same one, even with equal content in the same millisecond.
        oid = hashlib.sha1(json.dumps([parent, title, date, len(self.commits), names]).encode()).hexdigest()
        self.commits[oid] = Commit(oid, parent, title, date, MappingProxyType(dict(files)))
        self.refs[ref] = oid
        return self.commits[oid]

    def next_pull_request(self) -> int:
        return sum(ref.startswith("refs/pr/") for ref in self.refs) + 1


class HubStorage:
    """All users and repositories.

    Attributes:
        url: the address of the Hub.
        storage_url: that of the object storage.
        lock: held while a request is carried out, from its first look at a repository to its last change.
        tokens: the users by their tokens.
    """

    def __init__(self, url: str, storage_url: str):
        self.url, self.storage_url = url, storage_url
        self.lock = threading.Lock()
        self.tokens: dict[str, str] = {}
        self._repositories: dict[tuple[str, str], Repository] = {}

    def add_user(self, name: str) -> str:
        """Returns the token of a new user, in the form of the Hub's own."""
        token = f"hf_{secrets.token_hex(17)}"
        self.tokens[token] = name
        return token

    def add_repository(self, repository: Repository) -> Repository:
        self._repositories[repository.type, repository.id] = repository
        return repository

    def find(self, type: str, id: str) -> Repository | None:
        return self._repositories.get((type, id))

    def repository(self, id: str, type: str = "model") -> Repository:
        """For tests, which know that it is there."""
        return self._repositories[type, id]

    def publish(self, id: str, files: Mapping[str, bytes], type: str = "model", private: bool = False) -> Commit:
        """For tests that begin with a repository: makes it, with these files in one commit."""
        repository = self.add_repository(Repository(id, type, private))
        blobs = {path: Blob(content, goes_to_storage(path, len(content), content[:512])) for path, content in files.items()}
        repository.objects |= {blob.sha256: blob.content for blob in blobs.values() if blob.lfs}
        first = repository.at()
        return repository.commit("main", {**first.files, **blobs}, "published", first.oid)
