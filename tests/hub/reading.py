"""What the Hub answers to those who read: repositories, trees, files, objects."""

import hashlib
import re
from pathlib import PurePosixPath
from urllib.parse import parse_qs, quote

from . import cards
from .messages import Answer, HubError, Request, json_answer
from .storage import Blob, Commit, HubStorage, Repository


def whoami(hub: HubStorage, request: Request) -> Answer:
    token = {"type": "access_token", "accessToken": {"displayName": "tests", "role": "write"}}
    return json_answer({"type": "user", "id": request.user, "name": request.user, "orgs": [], "auth": token})


def information(hub: HubStorage, request: Request, repository: Repository) -> Answer:
    """`model_info`, `dataset_info`, `space_info`; sizes and hashes of the files with `blobs`."""
    commit = repository.at(request.parameters.get("revision", "main"))
    first = next(iter(repository.commits.values()))
    detailed = "blobs" in request.query
    content = {
        "id": repository.id,
        "author": repository.owner,
        "sha": commit.oid,
        "createdAt": first.date,
        "lastModified": commit.date,
        "private": repository.private,
        "siblings": [_sibling(path, blob, detailed) for path, blob in sorted(commit.files.items())],
        **_of_the_card(commit),
    }
    if repository.type == "space":
        content["sdk"] = repository.sdk
    return json_answer(content)


def _sibling(path: str, blob: Blob, detailed: bool) -> dict:
    if not detailed:
        return {"rfilename": path}
    lfs = {"sha256": blob.sha256, "size": len(blob.content), "pointerSize": len(blob.pointer)}
    return {"rfilename": path, "size": len(blob.content), "blobId": blob.git_oid, **({"lfs": lfs} if blob.lfs else {})}


def _of_the_card(commit: Commit) -> dict:
    if "README.md" not in commit.files:
        return {"tags": []}
    card = cards.metadata(commit.files["README.md"].content.decode())
    shown = {key: card[key] for key in ("library_name", "pipeline_tag") if key in card}
    return {"cardData": card, "tags": card.get("tags", []), **shown}


def tree(hub: HubStorage, request: Request, repository: Repository) -> Answer:
    commit = repository.at(request.parameters["revision"])
    folder = request.parameters.get("path", "").strip("/")
    start = f"{folder}/" if folder else ""
    entries = _entries(commit)
    if folder and entries.get(folder, {}).get("type") != "directory":
        raise _no_entry(folder, commit)
    recursive = request.query.get("recursive") == "true"
    inside = [entry for path, entry in sorted(entries.items()) if path.startswith(start)]
    return json_answer([entry for entry in inside if recursive or "/" not in entry["path"][len(start) :]])


def paths_info(hub: HubStorage, request: Request, repository: Repository) -> Answer:
    entries = _entries(repository.at(request.parameters["revision"]))
    paths = parse_qs(request.body.decode()).get("paths", [])
    return json_answer([entries[path.strip("/")] for path in paths if path.strip("/") in entries])


def _entries(commit: Commit) -> dict[str, dict]:
    """Files and folders of a commit by their paths."""
    entries, folders = {}, {}
    for path, blob in commit.files.items():
        entries[path] = {"type": "file", "oid": blob.git_oid, "size": len(blob.content), "path": path}
        if blob.lfs:
            entries[path]["lfs"] = {"oid": blob.sha256, "size": len(blob.content), "pointerSize": len(blob.pointer)}
        for folder in PurePosixPath(path).parents[:-1]:
            folders.setdefault(str(folder), []).append((path, blob.git_oid))
    for folder, content in folders.items():
        oid = hashlib.sha1(repr(sorted(content)).encode()).hexdigest()
        entries[folder] = {"type": "directory", "oid": oid, "size": 0, "path": folder}
    return entries


def resolve(hub: HubStorage, request: Request, repository: Repository) -> Answer:
    """A file. Those of the object storage are not sent but named: there the client goes without its token."""
    commit = repository.at(request.parameters["revision"])
    path = request.parameters["path"]
    blob = commit.files.get(path)
    if blob is None:
        raise _no_entry(path, commit)
    headers = {"X-Repo-Commit": commit.oid, "ETag": f'"{blob.etag}"'}
    if not blob.lfs:
        return _content(request, blob.content, headers)
    location = object_address(hub, repository, blob.sha256)
    linked = {"X-Linked-ETag": f'"{blob.sha256}"', "X-Linked-Size": str(len(blob.content))}
    return Answer(302, headers={**headers, **linked, "Location": location})


def download_object(hub: HubStorage, request: Request, repository: Repository) -> Answer:
    oid = request.parameters["oid"]
    if oid not in repository.objects:
        raise HubError(404, "NoSuchKey")
    return _content(request, repository.objects[oid], {"ETag": f'"{oid}"'})


def object_address(hub: HubStorage, repository: Repository, oid: str) -> str:
    """Where an object is read and written. Who knows the address may do so, as with the signed ones of the true storage."""
    return f"{hub.storage_url}/objects/{repository.type}s/{repository.id}/{quote(oid)}"


def _content(request: Request, content: bytes, headers: dict[str, str]) -> Answer:
    headers = {**headers, "Content-Type": "application/octet-stream", "Accept-Ranges": "bytes"}
    wanted = re.fullmatch(r"bytes=(\d*)-(\d*)", request.headers.get("Range", ""))
    if wanted is None:
        return Answer(200, content, headers)
    first, last = wanted.groups()
    start = int(first) if first else max(len(content) - int(last), 0)
    end = min(int(last) + 1, len(content)) if first and last else len(content)
    if start >= end:
        raise HubError(416, "Requested Range Not Satisfiable", headers={"Content-Range": f"bytes */{len(content)}"})
    return Answer(206, content[start:end], {**headers, "Content-Range": f"bytes {start}-{end - 1}/{len(content)}"})


def _no_entry(path: str, commit: Commit) -> HubError:
    return HubError(404, f"{path} does not exist on this revision", "EntryNotFound", headers={"X-Repo-Commit": commit.oid})
