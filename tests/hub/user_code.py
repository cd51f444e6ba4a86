"""What users run against the Hub. Each function is sent to another process, so it imports what it needs."""


def push(folder, repo_id, repo_type="model", private=None, **arguments):
    """Publishes a folder as one commit. Returns its id and, of a pull request, the revision."""
    from huggingface_hub import HfApi

    api = HfApi()
    if "create_pr" not in arguments:
        sdk = "gradio" if repo_type == "space" else None
        api.create_repo(repo_id, repo_type=repo_type, private=private, space_sdk=sdk, exist_ok=True)
    commit = api.upload_folder(folder_path=folder, repo_id=repo_id, repo_type=repo_type, **arguments)
    return commit.oid, commit.pr_revision


def fetch(repo_id, repo_type="model", revision=None):
    """The sha256 of each file of a repository, by path; without the file that the Hub adds to every repository."""
    from hashlib import sha256
    from pathlib import Path

    from huggingface_hub import snapshot_download

    folder = Path(snapshot_download(repo_id, repo_type=repo_type, revision=revision))
    found = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    return {name: sha256(path.read_bytes()).hexdigest() for name, path in found.items() if name != ".gitattributes"}


def fetch_file(repo_id, filename, revision=None):
    """The sha256 of one file."""
    from hashlib import sha256
    from pathlib import Path

    from huggingface_hub import hf_hub_download

    return sha256(Path(hf_hub_download(repo_id, filename, revision=revision)).read_bytes()).hexdigest()


def head(repo_id):
    """The id of the last commit, `None` where there is no repository."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import RepositoryNotFoundError

    try:
        return HfApi().model_info(repo_id).sha
    except RepositoryNotFoundError:
        return None


def whoami():
    from huggingface_hub import HfApi

    return HfApi().whoami()["name"]


def plan_fault(**fault):
    """As [`FaultPlan.add`], with the effect as JSON."""
    import os

    from huggingface_hub.utils import get_session

    get_session().post(f"{os.environ['HF_ENDPOINT']}/_control/faults", json=fault).raise_for_status()


def clear_faults():
    import os

    from huggingface_hub.utils import get_session

    get_session().delete(f"{os.environ['HF_ENDPOINT']}/_control/faults").raise_for_status()


def read_log():
    import os

    from huggingface_hub.utils import get_session

    return get_session().get(f"{os.environ['HF_ENDPOINT']}/_control/requests").json()
