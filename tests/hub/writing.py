"""What the Hub does for those who write: repositories, uploads, commits."""

import base64
import hashlib
import json
from collections.abc import Mapping

from . import cards
from .messages import Answer, HubError, Request, json_answer
from .reading import object_address
from .storage import Blob, HubStorage, Repository, goes_to_storage


def create_repository(hub: HubStorage, request: Request) -> Answer:
    wanted = request.json()
    owner, type = wanted["organization"] or request.user, wanted.get("type", "model")
    if owner != request.user:
        raise HubError(403, f'You don\'t have the rights to create a {type} under the namespace "{owner}"')
    id = f"{owner}/{wanted['name']}"
    existing = hub.find(type, id)
    if existing is not None:
        raise HubError(409, f"You already created this {type} repo", url=_address(hub, existing))
    repository = Repository(id, type, private=wanted.get("visibility") == "private", sdk=wanted.get("sdk"))
    hub.add_repository(repository)
    return json_answer({"id": id, "name": id, "url": _address(hub, repository)})


def _address(hub: HubStorage, repository: Repository) -> str:
    return f"{hub.url}/{repository.prefix}{repository.id}"


def validate_yaml(hub: HubStorage, request: Request) -> Answer:
    card = request.json()
    errors, warnings = cards.validate(card["content"], card["repoType"])
    found = {"errors": [{"message": text} for text in errors], "warnings": [{"message": text} for text in warnings]}
    return json_answer(found, 400 if errors else 200)


def preupload(hub: HubStorage, request: Request, repository: Repository) -> Answer:
    """Tells of every file how it is to be sent, and what is there already."""
    present = repository.at(request.parameters["revision"]).files
    files = []
    for file in request.json()["files"]:
        path = file["path"]
        large = goes_to_storage(path, file["size"], base64.b64decode(file["sample"]))
        known = {"oid": present[path].etag} if path in present else {}
        files.append({"path": path, "uploadMode": "lfs" if large else "regular", "shouldIgnore": False, **known})
    return json_answer({"files": files})


def lfs_batch(hub: HubStorage, request: Request, repository: Repository) -> Answer:
    """Says where to put which objects; those that are there already need no upload."""
    objects = []
    for wanted in request.json()["objects"]:
        oid = wanted["oid"]
        upload = {"actions": {"upload": {"href": object_address(hub, repository, oid)}}}
        objects.append({"oid": oid, "size": wanted["size"], **({} if oid in repository.objects else upload)})
    return json_answer({"transfer": "basic", "objects": objects})


def upload_object(hub: HubStorage, request: Request, repository: Repository) -> Answer:
    oid = request.parameters["oid"]
    if hashlib.sha256(request.body).hexdigest() != oid:
        raise HubError(400, "BadDigest: the sha256 of what arrived is not the one that was announced")
    repository.objects[oid] = request.body
    return Answer()


def commit(hub: HubStorage, request: Request, repository: Repository) -> Answer:
    """Carries out all operations, or none."""
    header, *operations = (json.loads(line) for line in request.body.splitlines())
    branch = request.parameters["revision"]
    parent = repository.at(branch)
    if header["value"].get("parentCommit", parent.oid) != parent.oid:
        raise HubError(412, "A commit has happened since. Please refresh and try again.")
    pull_request = repository.next_pull_request() if request.query.get("create_pr") == "1" else None
    if pull_request is None and branch not in repository.refs:
        raise HubError(404, f"{branch} is not a branch", "RevisionNotFound")
    files = dict(parent.files)
    for operation in operations:
        OPERATIONS[operation["key"]](repository, files, operation["value"])
    _check_card(repository, files)
    ref = branch if pull_request is None else f"refs/pr/{pull_request}"
    oid = repository.commit(ref, files, header["value"]["summary"], parent.oid).oid
    address = _address(hub, repository)
    discussion = {} if pull_request is None else {"pullRequestUrl": f"{address}/discussions/{pull_request}"}
    return json_answer({"success": True, "commitOid": oid, "commitUrl": f"{address}/commit/{oid}", **discussion})


def _check_card(repository: Repository, files: Mapping[str, Blob]) -> None:
    if "README.md" in files:
        errors, _ = cards.validate(files["README.md"].content.decode(), repository.type)
        if errors:
            raise HubError(400, f"Invalid metadata in README.md: {errors[0]}")


def _add_file(repository: Repository, files: dict[str, Blob], value: Mapping) -> None:
    files[value["path"]] = Blob(base64.b64decode(value["content"]))


def _add_object(repository: Repository, files: dict[str, Blob], value: Mapping) -> None:
    content = repository.objects.get(value["oid"])
    if content is None:
        raise HubError(400, f"LFS pointer pointed to a file that does not exist: {value['path']}")
    files[value["path"]] = Blob(content, lfs=True)


def _delete_file(repository: Repository, files: dict[str, Blob], value: Mapping) -> None:
    if files.pop(value["path"], None) is None:
        raise HubError(404, f"A file with this name doesn't exist: {value['path']}", "EntryNotFound")


def _delete_folder(repository: Repository, files: dict[str, Blob], value: Mapping) -> None:
    inside = [path for path in files if path.startswith(f"{value['path'].rstrip('/')}/")]
    if not inside:
        raise HubError(404, f"A folder with this name doesn't exist: {value['path']}", "EntryNotFound")
    for path in inside:
        del files[path]


OPERATIONS = {"file": _add_file, "lfsFile": _add_object, "deletedFile": _delete_file, "deletedFolder": _delete_folder}
