"""Makes the folder that is sent to the Hub: what a training run left, without what is of use to its owner alone."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from hub_cards.evaluations import RECORDS, read_evaluation
from hub_cards.licences import is_on_hub
from hub_cards.model_card import write_card
from hub_cards.repository import CARD_PICTURES, read_json
from hub_cards.results import write_entries, write_results
from m2c.checkpoints import load_model, load_processor, save_adapter, save_retriever, set_base
from m2c.training.records.log import LOG
from m2c.training.records.run_record import RUN_RECORD
from m2c.training.records.tracking import TENSORBOARD_FOLDER
from modeling_m2c import M2CModel

from .copying import copy, files_of, refuse_full_disk, size_of


Form = Literal["as it is", "adapter", "merged"]
# Of a run, for its owner: to go on from, to look into, with paths of the owner's machine. Figures for the Hub are made anew.
OWNERS = (".*", "*.partial", "__pycache__", "checkpoints", LOG, RUN_RECORD, TENSORBOARD_FOLDER)
# What was found out about a model, in whatever form its weights are published.
RECORD_FILES = {"training.json", "conversion.json", *CARD_PICTURES}


@dataclass(frozen=True)
class Results:
    """What was measured, beside the records that lie in the model's folder already.

    Args:
        paths: what `m2c evaluate --output` wrote.
        datasets: repositories of benchmarks on the Hub, by the benchmark's name.
    """

    paths: tuple[Path, ...] = ()
    datasets: dict[str, str] = field(default_factory=dict)


NO_RESULTS = Results()


def is_model(folder: Path) -> bool:
    """Whether a folder holds a model; otherwise it should hold a data set."""
    return (folder / "config.json").is_file() or is_adapter_alone(folder)


def is_adapter_alone(folder: Path) -> bool:
    return (folder / "adapter_config.json").is_file() and not (folder / "config.json").is_file()


def stage_model(
    folder: Path,
    target: Path,
    repo_id: str,
    form: Form = "as it is",
    base: str | None = None,
    licence: str | None = None,
    results: Results = NO_RESULTS,
    pictures_licence: str | None = None,
) -> None:
    """Writes into `target` what is to be published of a model, with its figures and its card.

    Args:
        folder: what training or conversion wrote.
        target: an empty folder.
        repo_id: where it will be published.
        form: as the folder holds it, the adapter of stage 2 alone, or with the adapter merged into the weights. Merged weights
            are others than those that the records in the folder are of, so these stay behind.
        base: for an adapter alone: the repository of the stage-1 model that it was trained on.
        licence: of the repository, by its Hub identifier.
        results: further records.
        pictures_licence: of the pictures in it.

    Raises:
        ValueError: if the folder holds links, no retriever with its processor, or not what the form needs; if an adapter's base
            is missing or another one, something was measured on other weights, or the disk is full.
    """
    _check_model(folder)
    paths = files_of(folder, OWNERS)
    if form == "as it is":
        refuse_full_disk(target, size_of(paths, folder, target))
        copy(paths, folder, target)
        if is_adapter_alone(target):
            set_base(target, _base_of(target, base))
    else:
        refuse_full_disk(target, sum((folder / path).stat().st_size for path in paths))
        _write_other_form(folder, target, form, base)
        kept = RECORD_FILES if form == "merged" else {*RECORD_FILES, RECORDS}
        copy([path for path in paths if path.parts[0] in kept], folder, target)
    write_results(target, [read_evaluation(path) for path in results.paths], results.datasets)
    write_entries(target, repo_id)
    write_card(target, repo_id, licence, pictures_licence)


def name_itself_as_base(target: Path, repo_id: str) -> None:
    """Clients of the Hub look for the base of an adapter by name, which in a full repository is the repository itself.

    To be done last, as not every client still loads such a folder where it lies.
    """
    if (target / "adapter_config.json").is_file() and not is_adapter_alone(target):
        set_base(target, repo_id)


def _write_other_form(folder: Path, target: Path, form: Form, base: str | None) -> None:
    model, processor = _with_adapter(folder, form), load_processor(str(folder))
    if form == "adapter":
        save_adapter(model, processor, target, _base_of(folder, base))
    else:
        model.merge_adapter()
        save_retriever(model, processor, target)


def _check_model(folder: Path) -> None:
    kind = "m2c" if is_adapter_alone(folder) else read_json(folder / "config.json").get("model_type")
    if kind != "m2c":
        raise ValueError(f"{folder} holds a model of type {kind!r}, and no retriever; m2c train makes one of a CLIP")
    if not (folder / "processor_config.json").is_file():
        raise ValueError(f"{folder} holds a model without a processor; convert it again with --clip and its tokenizer")


def _base_of(folder: Path, base: str | None) -> str:
    recorded = read_json(folder / "adapter_config.json")
    name = base or recorded.get("base_model_name_or_path") or (recorded.get("auto_mapping") or {}).get("base_name")
    if not is_on_hub(name):
        raise ValueError(
            f"an adapter alone needs its base on the Hub, and {name!r} is no repository: publish what stage 1 wrote, and name "
            "it with --base"
        )
    return name


def _with_adapter(folder: Path, form: Form) -> M2CModel:
    model = load_model(str(folder)).eval()
    if not model._hf_peft_config_loaded:
        option = {"adapter": "--adapter-only", "merged": "--merge"}[form]
        raise ValueError(f"{folder} has no adapter of stage 2, which {option} is about; leave {option} out")
    return model
