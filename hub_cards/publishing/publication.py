"""`m2c publish`: from a folder to a repository of the Hub that has been seen to load."""

import re
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from huggingface_hub.utils import HFValidationError, validate_repo_id

from hub_cards.evaluations import RECORDS
from hub_cards.licences import licence_of_pictures
from hub_cards.repository import read_repository
from hub_cards.signature import is_handwritten

from .checks import refuse_problems
from .data_staging import stage_dataset
from .failures import reading_from_hub
from .hub import CARD, Destination, Published
from .loading import differences, probe, probe_rows
from .sending import send_checked
from .staging import NO_RESULTS, Form, Results, is_adapter_alone, is_model, name_itself_as_base, stage_model


# Merged weights compute in another order.
FORM_TOLERANCE = 1e-4
LOOK_AGAIN = "run the same command again, which sends nothing twice and looks once more"


@dataclass(frozen=True)
class Options:
    """How to publish.

    Args:
        private: for a repository that is not there yet.
        form: of a model: as its folder holds it, the adapter alone, or merged.
        base: of an adapter alone: the repository of its stage-1 model.
        results: of a model: what was measured, beside the records in its folder.
        create_pr: as a pull request, which changes nothing until it is merged.
        replace: also what was not published with this package, and a card that was written or changed by hand.
        dry_run: stop before anything is sent.
        licence: of the repository, by its Hub identifier, such as `"apache-2.0"`.
        pictures_licence: of the pictures that are sent with a model; those of a data set are under its own.
        source: of a data set: where images and texts come from.
    """

    private: bool = False
    form: Form = "as it is"
    base: str | None = None
    results: Results = NO_RESULTS
    create_pr: bool = False
    replace: bool = False
    dry_run: bool = False
    licence: str | None = None
    pictures_licence: str | None = None
    source: str | None = None


DEFAULTS = Options()


def publish(folder: Path, repo_id: str, options: Options = DEFAULTS, say: Callable[[str], None] = print) -> Published | None:
    """Checks a model or a data set, sends it as one commit, and sees that what was published is what lies in the folder: by
    checksums, and in a fresh process, of a model by its features, and of a data set by its rows and columns.

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
    publish_kind = _publish_model if is_model(folder) else _publish_data
    with tempfile.TemporaryDirectory() as temporary, reading_from_hub():
        try:
            published = publish_kind(folder, Path(temporary), repo_id, options, say)
        except ValueError as error:
            # What is wrong in the copy is wrong in the folder, and there it can be mended.
            raise ValueError(str(error).replace(temporary, str(folder))) from error
        if published is not None:
            is_proposed = options.create_pr and published.is_new
            say(f"Published: {published.url}\n{'Once it is merged:' if is_proposed else ''}\n{_usage(Path(temporary))}")
    return published


def _publish_model(folder: Path, staged: Path, repo_id: str, options: Options, say: Callable[[str], None]) -> Published | None:
    if options.form == "merged" and (folder / RECORDS).is_dir():
        say(f"{RECORDS}/ stays behind, as it is not of merged weights. Measure these, and add what comes out with --results")
    pictures_licence = options.pictures_licence or licence_of_pictures(read_repository(folder).datasets)
    stage_model(folder, staged, repo_id, options.form, options.base, options.licence, options.results, pictures_licence)
    refuse_problems(staged, folder, pictures_licence)
    say("Loading it in a fresh process ...")
    features = probe(staged)
    if options.form != "as it is" and (changed := differences(probe(folder), features, FORM_TOLERANCE)):
        raise ValueError(f"the {options.form} form gives other features of {', '.join(changed)} than {folder}; do not use it")
    name_itself_as_base(staged, repo_id)
    published = _send(staged, "model", repo_id, options, say)
    if published is not None:
        _compare(features, repo_id, published, is_adapter_alone(staged))
    return published


def _publish_data(folder: Path, staged: Path, repo_id: str, options: Options, say: Callable[[str], None]) -> Published | None:
    counts = stage_dataset(folder, staged, repo_id, options.licence, options.source)
    refuse_problems(staged, folder, options.licence)
    say("Loading it in a fresh process ...")
    rows = probe_rows(staged)
    read = {split: part["rows"] for parts in rows.values() for split, part in parts.items()}
    if counts and read != counts:
        raise ValueError(
            f"`datasets` reads {read} rows of {folder}, its card counts {counts}; is there a metadata.jsonl too many?"
        )
    published = _send(staged, "dataset", repo_id, options, say)
    if published is not None:
        with _loading(published):
            found = probe_rows(repo_id, published.revision)
        if found != rows:
            raise OSError(f"{published.url} was published, but `datasets` reads {found} from there, and {rows} from {folder}")
    return published


def _send(staged: Path, kind: str, repo_id: str, options: Options, say: Callable[[str], None]) -> Published | None:
    destination = Destination(repo_id, kind, options.private, options.create_pr)
    return send_checked(staged, destination, say, options.replace, options.dry_run)


def _check_arguments(folder: Path, repo_id: str, options: Options) -> None:
    if not folder.is_dir():
        raise ValueError(f"{folder} is no folder; publish the output folder of a training, or of a data set")
    try:
        validate_repo_id(repo_id)
    except HFValidationError as error:
        raise ValueError(f"{repo_id!r} is no name of a repository: {error}") from None
    if "/" not in repo_id:
        raise ValueError(f"{repo_id!r} lacks the user or organisation; write it as user/{repo_id}")
    card = folder / CARD
    if not options.replace and card.is_file() and is_handwritten(card.read_text(encoding="utf-8", errors="replace")):
        raise ValueError(
            f"{card} was written or changed by hand, and another card would be published in its place. Move it away, or add "
            "--replace, which leaves it where it is"
        )
    if is_model(folder):
        if options.source:
            raise ValueError(f"--source is of data sets, and {folder} holds a model, whose card takes it from the records")
        if options.base and options.form != "adapter" and not is_adapter_alone(folder):
            raise ValueError("--base goes with --adapter-only: all other forms hold their base")
        return
    if options.form != "as it is" or options.base or options.results != NO_RESULTS or options.pictures_licence:
        raise ValueError(
            f"--adapter-only, --merge, --base, --results and --pictures-licence are of models, and there is none in {folder}"
        )
    if not options.licence:
        raise ValueError(f"the data set in {folder} has no licence; name one with --licence, as the Hub spells it: cc-by-4.0")


def _compare(features: dict[str, torch.Tensor], repo_id: str, published: Published, is_adapter: bool) -> None:
    with _loading(published):
        found = probe(repo_id, published.revision, is_adapter)
    if changed := differences(features, found):
        raise OSError(f"{published.url} was published, but gives other features of {', '.join(changed)} than before")


@contextmanager
def _loading(published: Published) -> Iterator[None]:
    """What cannot be loaded now is there nevertheless."""
    try:
        yield
    except ValueError as error:
        raise OSError(f"{published.url} was published, but {error}. If that was the connection, {LOOK_AGAIN}") from None


def _usage(folder: Path) -> str:
    """The first block of code in the card."""
    found = re.search(r"```python\n(.*?)```", (folder / CARD).read_text(encoding="utf-8"), re.DOTALL)
    return found[1].strip() if found else ""
