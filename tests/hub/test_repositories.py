"""Repositories of every kind through `huggingface_hub`: what is pushed is what comes back."""

from dataclasses import replace
from functools import partial
from hashlib import sha256

import pytest

from .user_code import fetch, fetch_file, push


def digests(files: dict[str, bytes]) -> dict[str, str]:
    """What `fetch` returns of a repository with these files."""
    return {path: sha256(content).hexdigest() for path, content in files.items() if path != ".gitattributes"}


@pytest.mark.parametrize("repo_type", ["model", "dataset", "space"])
def test_a_folder_comes_back_as_it_was(hub, client, stranger, files, folder, repo_type):
    """To everybody, and once more from the cache alone."""
    if repo_type == "space":
        files["README.md"] = b"---\nsdk: gradio\n---\n"
        (folder / "README.md").write_bytes(files["README.md"])
    oid, _ = client.run(push, folder=folder, repo_id="ana/m2c", repo_type=repo_type)
    repository = hub.repository("ana/m2c", repo_type)
    assert repository.at().oid == oid and digests(repository.files()) == digests(files)
    assert {path for path, blob in repository.at().files.items() if blob.lfs} == {"assets/curve.png", "model.safetensors"}
    assert stranger.run(fetch, repo_id="ana/m2c", repo_type=repo_type) == digests(files)
    hub.close()
    assert replace(stranger, offline=True).run(fetch, repo_id="ana/m2c", repo_type=repo_type) == digests(files)


def test_types_are_apart(hub, stranger):
    types = ("model", "dataset", "space")
    for repo_type in types[:2]:
        hub.publish("ana/m2c", {"is.txt": repo_type.encode()}, repo_type)
    outcomes = stranger.session(*(partial(fetch, repo_id="ana/m2c", repo_type=repo_type) for repo_type in types))
    assert [outcome.value for outcome in outcomes[:2]] == [digests({"is.txt": name.encode()}) for name in types[:2]]
    assert outcomes[2].error == "RepositoryNotFoundError"


def test_every_revision_stays(hub, client, stranger, files, folder):
    old = hub.publish("ana/m2c", files).oid
    (folder / "config.json").write_text("new")
    new, _ = client.run(push, folder=folder, repo_id="ana/m2c")
    assert hub.repository("ana/m2c").at(new).parent == old
    first, last, wrong_revision, wrong_name = stranger.session(
        partial(fetch, repo_id="ana/m2c", revision=old),
        partial(fetch, repo_id="ana/m2c"),
        partial(fetch_file, repo_id="ana/m2c", filename="config.json", revision="0" * 40),
        partial(fetch_file, repo_id="ana/m2c", filename="no.json"),
    )
    assert first.value == digests(files) and last.value == digests({**files, "config.json": b"new"})
    assert wrong_revision.error == "RevisionNotFoundError" and wrong_name.error == "RemoteEntryNotFoundError"


def test_what_is_there_is_not_sent_again(hub, client, files, folder):
    hub.publish("ana/m2c", files)
    published = hub.repository("ana/m2c").at()
    assert client.run(push, folder=folder, repo_id="ana/m2c")[0] == published.oid, "without a change there is no commit"
    (folder / "model.safetensors").rename(folder / "renamed.safetensors")
    client.run(push, folder=folder, repo_id="ana/m2c", delete_patterns="*.safetensors")
    assert not hub.requests("PUT /objects/")
    files["renamed.safetensors"] = files.pop("model.safetensors")
    assert digests(hub.repository("ana/m2c").files()) == digests(files)


def look_around(repo_id):
    """What the Hub tells about files, checked against the client's own hashes of their contents."""
    import hashlib
    from pathlib import Path

    from huggingface_hub import HfApi, RepoFile, hf_hub_download
    from huggingface_hub.utils.sha import git_hash

    api = HfApi()
    files = [entry for entry in api.list_repo_tree(repo_id, recursive=True) if isinstance(entry, RepoFile)]
    contents = {file.path: Path(hf_hub_download(repo_id, file.path)).read_bytes() for file in files}
    return {
        "names": sorted(api.list_repo_files(repo_id)),
        "top": sorted(entry.path for entry in api.list_repo_tree(repo_id)),
        "inside": [entry.path for entry in api.list_repo_tree(repo_id, "assets")],
        "asked for": sorted(entry.path for entry in api.get_paths_info(repo_id, ["assets", "config.json", "no.json"])),
        "true sizes": [file.path for file in files if file.size == len(contents[file.path])],
        "true blobs": [file.path for file in files if file.blob_id == git_hash(contents[file.path])],
        "true objects": [
            file.path for file in files if file.lfs and file.lfs.sha256 == hashlib.sha256(contents[file.path]).hexdigest()
        ],
    }


def test_listings(hub, client, files):
    hub.publish("ana/m2c", files)
    names = sorted([".gitattributes", *files])
    assert client.run(look_around, repo_id="ana/m2c") == {
        "names": names,
        "top": [".gitattributes", "README.md", "assets", "config.json", "model.safetensors"],
        "inside": ["assets/curve.png"],
        "asked for": ["assets", "config.json"],
        "true sizes": names,
        "true blobs": [".gitattributes", "README.md", "config.json"],
        "true objects": ["assets/curve.png", "model.safetensors"],
    }


def describe(repo_id):
    from huggingface_hub import HfApi

    info = HfApi().model_info(repo_id, files_metadata=True)
    sizes = {file.rfilename: file.size for file in info.siblings}
    return [
        info.sha,
        info.author,
        info.private,
        info.pipeline_tag,
        info.library_name,
        info.card_data.license,
        sizes["config.json"],
    ]


def test_information_comes_from_the_card(hub, client, files):
    commit = hub.publish("ana/m2c", files)
    found = client.run(describe, repo_id="ana/m2c")
    assert found == [commit.oid, "ana", False, "zero-shot-image-classification", "transformers", "apache-2.0", 14]


@pytest.mark.parametrize(
    ("card", "repo_type", "message"),
    [
        ("license: Apache License 2.0", "model", '"license" must be one of'),
        ("license: [mit", "model", "YAML metadata cannot be read"),
        ("sdk: gradio\ncolorFrom: orange", "space", '"colorFrom" must be one of'),
    ],
)
def test_a_card_with_wrong_metadata_stops_before_anything_is_sent(hub, client, folder, card, repo_type, message):
    (folder / "README.md").write_text(f"---\n{card}\n---\n# A card\n")
    outcome = client.attempt(push, folder=folder, repo_id="ana/m2c", repo_type=repo_type)
    assert outcome.error == "ValueError" and message in outcome.message
    assert set(hub.repository("ana/m2c", repo_type).files()) == {".gitattributes"} and not hub.requests("PUT|preupload")


def delete(repo_id, paths):
    from huggingface_hub import CommitOperationDelete, HfApi

    HfApi().create_commit(repo_id, [CommitOperationDelete(path) for path in paths], commit_message="delete")


def test_deleting(hub, client, files):
    """Files and folders; if one of them is not there, nothing is deleted."""
    hub.publish("ana/m2c", files)
    outcomes = client.session(
        *(partial(delete, repo_id="ana/m2c", paths=["README.md", missing]) for missing in ("no.json", "nowhere/")),
        partial(delete, repo_id="ana/m2c", paths=["config.json", "assets/"]),
    )
    assert [outcome.error for outcome in outcomes] == ["RemoteEntryNotFoundError", "RemoteEntryNotFoundError", None]
    assert set(hub.repository("ana/m2c").files()) == {".gitattributes", "README.md", "model.safetensors"}
    assert len(hub.repository("ana/m2c").commits) == 3


def test_a_pull_request_leaves_main_alone(hub, client, reader, stranger, files, folder):
    """Opened by somebody who may not write, continued by the owner."""
    published = hub.publish("ana/m2c", files)
    repository = hub.repository("ana/m2c")
    (folder / "model.safetensors").write_bytes(b"better")
    oid, revision = reader.run(push, folder=folder, repo_id="ana/m2c", create_pr=True)
    assert revision == "refs/pr/1" and repository.at(oid).parent == published.oid
    assert stranger.run(fetch, repo_id="ana/m2c", revision=revision) == digests({**files, "model.safetensors": b"better"})
    (folder / "config.json").write_text("better")
    more, other = client.session(
        partial(push, folder=folder, repo_id="ana/m2c", revision=revision),
        partial(push, folder=folder, repo_id="ana/m2c", create_pr=True),
    )
    assert repository.at(revision).oid == more.value[0] and repository.at(revision).parent == oid
    assert other.value[1] == "refs/pr/2" and repository.at("refs/pr/2").parent == published.oid
    assert repository.at() == published


def test_a_commit_may_name_its_parent(hub, client, files, folder):
    published = hub.publish("ana/m2c", files)
    calls = []
    for attempt in ("first", "second"):
        (folder / attempt).mkdir()
        (folder / attempt / "config.json").write_text(attempt)
        calls.append(partial(push, folder=folder / attempt, repo_id="ana/m2c", parent_commit=published.oid))
    first, second = client.session(*calls)
    assert first.error is None
    assert second.error == "HfHubHTTPError" and "A commit has happened since" in second.message
    assert hub.repository("ana/m2c").files()["config.json"] == b"first"


def push_at_once(repo_id, count):
    from concurrent.futures import ThreadPoolExecutor

    from huggingface_hub import HfApi

    def upload(number):
        HfApi().upload_file(path_or_fileobj=b"content %d" % number, path_in_repo=f"{number}.bin", repo_id=repo_id)

    with ThreadPoolExecutor(count) as pool:
        list(pool.map(upload, range(count)))


def test_commits_at_once_lose_nothing(hub, client):
    hub.publish("ana/m2c", {})
    client.run(push_at_once, repo_id="ana/m2c", count=8)
    repository = hub.repository("ana/m2c")
    assert digests(repository.files()) == digests({f"{number}.bin": b"content %d" % number for number in range(8)})
    history, oid = [], repository.at().oid
    while oid is not None:
        history.append(len(repository.files(oid)))
        oid = repository.at(oid).parent
    assert history == [9, 8, 7, 6, 5, 4, 3, 2, 1, 1]
