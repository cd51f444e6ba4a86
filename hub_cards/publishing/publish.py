"""`m2c publish`: from a folder to a repository of the Hub that has been seen to load."""

import re
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from huggingface_hub.utils import HFValidationError, validate_repo_id

from .checks import find_problems
from .hub import Published, differing_files, send
from .loading import differences, probe
from .staging import Form, is_adapter_alone, is_model, name_itself_as_base, stage_dataset, stage_model


@dataclass(frozen=True)
class Options:
    """How to publish.

    Args:
        private: for a repository that is not there yet.
        form: of a model: as its folder holds it, the adapter alone, or merged.
        base: of an adapter alone: the repository of its stage-1 model.
        create_pr: as a pull request, which changes nothing until it is merged.
        dry_run: stop before anything is sent.
        licence: of the repository, by its Hub identifier, such as `"apache-2.0"`.
        source: of a data set: where images and texts come from.
    """

    private: bool = False
    form: Form = "as it is"
    base: str | None = None
    create_pr: bool = False
    dry_run: bool = False
    licence: str | None = None
    source: str | None = None


DEFAULTS = Options()


def publish(folder: Path, repo_id: str, options: Options = DEFAULTS, say: Callable[[str], None] = print) -> Published | None:
    """Checks a model or a data set, sends it as one commit, and sees that what was published is what lies in the folder: by
    checksums, and of a model by its features in a fresh process.

    Args:
        folder: of the model or data set. Nothing in it is changed.
        repo_id: where to, `"user/name"`.
        options: how.
        say: prints a line of progress.

    Returns:
        Where it is now; `None` after a dry run.

    Raises:
        ValueError: if something in the folder must not be published, or does not load; the message lists what.
        OSError: if the Hub refuses or cannot be reached, or does not give back what was sent.
    """
    _check_arguments(folder, repo_id, options)
    kind = "model" if is_model(folder) else "dataset"
    with tempfile.TemporaryDirectory() as temporary:
        staged = Path(temporary)
        if kind == "model":
            stage_model(folder, staged, repo_id, options.form, options.base, options.licence)
        else:
            stage_dataset(folder, staged, repo_id, options.licence, options.source)
        if problems := find_problems(staged):
            raise ValueError("\n- ".join([f"{folder} must not be published as it is:", *problems]))
        say(f"{'A pull request to' if options.create_pr else 'For'} the {kind} {repo_id}:\n{contents(staged)}")
        features = {}
        if kind == "model":
            say("Loading it in a fresh process ...")
            features = probe(staged)
        if options.dry_run:
            say("This was a dry run: nothing was sent.")
            return None
        name_itself_as_base(staged, repo_id)
        say("Sending ...")
        published = send(staged, repo_id, kind, options.private, options.create_pr, f"Publish {kind} with m2c")
        if not published.is_new:
            say("All of it is there already.")
        say(f"Checking revision {published.revision[:8]} ...")
        if files := differing_files(staged, repo_id, kind, published.revision):
            raise OSError(f"{published.url} was published, but differs in {', '.join(files)}. Run the same command again")
        if features:
            _compare(features, repo_id, published, is_adapter_alone(staged))
        say(f"Published: {published.url}\n{'Once it is merged:' if options.create_pr else ''}\n{_usage(staged)}")
    return published


def contents(folder: Path) -> str:
    """The files of a folder with their sizes, and the sum."""
    sizes = {path.relative_to(folder).as_posix(): path.stat().st_size for path in folder.rglob("*") if path.is_file()}
    rows = [*sorted(sizes.items()), (f"{len(sizes)} files", sum(sizes.values()))]
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"  {name:<{width}}  {_readable(size):>9}" for name, size in rows)


def _readable(size: float) -> str:
    if size < 1000:
        return f"{size} B"
    for unit in ("kB", "MB"):
        size /= 1000
        if size < 1000:
            return f"{size:.1f} {unit}"
    return f"{size / 1000:.1f} GB"


def _check_arguments(folder: Path, repo_id: str, options: Options) -> None:
    if not folder.is_dir():
        raise ValueError(f"{folder} is no folder; publish the output folder of a training, or of a data set")
    try:
        validate_repo_id(repo_id)
    except HFValidationError as error:
        raise ValueError(f"{repo_id!r} is no name of a repository: {error}") from None
    if "/" not in repo_id:
        raise ValueError(f"{repo_id!r} lacks the user or organisation; write it as user/{repo_id}")
    if is_model(folder) and options.source:
        raise ValueError(f"--source is of data sets, and {folder} holds a model, whose card takes it from the records")
    if not is_model(folder) and (options.form != "as it is" or options.base):
        raise ValueError(f"--adapter-only, --merge and --base are of models, and there is none in {folder}")
    if options.base and options.form != "adapter" and not is_adapter_alone(folder):
        raise ValueError("--base goes with --adapter-only: all other forms hold their base")


def _compare(features: dict[str, torch.Tensor], repo_id: str, published: Published, is_adapter: bool) -> None:
    try:
        found = probe(repo_id, published.revision, is_adapter)
    except ValueError as error:
        raise OSError(f"{published.url} was published, but {error}. If that was the connection, load it once more") from None
    if changed := differences(features, found):
        raise OSError(f"{published.url} was published, but gives other features of {', '.join(changed)} than before")


def _usage(folder: Path) -> str:
    """The first block of code in the card."""
    found = re.search(r"```python\n(.*?)```", (folder / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    return found[1].strip() if found else ""
