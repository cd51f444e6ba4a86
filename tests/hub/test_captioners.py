"""Captioners on the Hub: by which commit their captions are found again."""

from functools import partial

from m2c.retrieval.scenes import CAPTIONER_PATH

from .user_code import push


def identities(repo_id, revisions):
    """Of a captioner at each of these revisions, and which of its files were needed for that."""
    from huggingface_hub import scan_cache_dir

    from m2c.retrieval.captioning import load_captioner

    found = [load_captioner(repo_id, revision=revision).identity for revision in revisions]
    (repository,) = scan_cache_dir().repos
    return found, sorted({file.file_name for revision in repository.revisions for file in revision.files})


def test_a_captioner_is_known_by_its_commit_and_its_weights_are_not_fetched_for_that(hub, client, stranger, tmp_path):
    (tmp_path / "README.md").write_text("More about this captioner.")
    repo_id = "ana/captioner"
    first, second = client.session(
        partial(push, folder=CAPTIONER_PATH, repo_id=repo_id),
        partial(push, folder=tmp_path, repo_id=repo_id, allow_patterns="README.md"),
    )
    (result,) = stranger.session(partial(identities, repo_id=repo_id, revisions=[None, "main", first.value[0]]))
    (newest, branch, pinned), files = result.value
    assert newest == branch == {**pinned, "revision": second.value[0]}
    assert pinned["revision"] == first.value[0] != second.value[0]
    assert "config.json" in files and not any(name.endswith(".safetensors") for name in files)
