"""Makes the folder that is sent to the Hub: what a training run left, without what is of use to its owner alone."""

import json
import os
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Literal

from hub_cards.dataset_card import write_dataset_card
from hub_cards.dataset_folder import IMAGE, METADATA
from hub_cards.evaluations import ENTRIES, RECORDS
from hub_cards.licences import is_on_hub
from hub_cards.model_card import write_card
from hub_cards.repository import PICTURES, read_json
from m2c.checkpoints import load_model, load_processor, save_adapter, save_retriever, set_base
from modeling_m2c import M2CModel


Form = Literal["as it is", "adapter", "merged"]
# Of a run, for its owner: to go on from, to look into, with paths of the owner's machine.
private = shutil.ignore_patterns(".*", "*.partial", "__pycache__", "checkpoints", "log.jsonl", "run.json", "trackers")
# What was found out about a model, whatever form it is published in.
RECORD_FILES = ("training.json", "conversion.json", *PICTURES, RECORDS, ENTRIES)
# Nothing writes into these after they are staged.
LARGE = {".arrow", ".jpeg", ".jpg", ".parquet", ".png", ".safetensors"}


def is_model(folder: Path) -> bool:
    """Whether a folder holds a model; otherwise it should hold a data set."""
    return (folder / "config.json").is_file() or is_adapter_alone(folder)


def is_adapter_alone(folder: Path) -> bool:
    return (folder / "adapter_config.json").is_file() and not (folder / "config.json").is_file()


def stage_model(
    folder: Path, target: Path, repo_id: str, form: Form = "as it is", base: str | None = None, licence: str | None = None
) -> None:
    """Writes into `target` what is to be published of a model, with its card.

    Args:
        folder: what training or conversion wrote.
        target: an empty folder.
        repo_id: where it will be published.
        form: as the folder holds it, the adapter of stage 2 alone, or with the adapter merged into the weights.
        base: for an adapter alone: the repository of the stage-1 model that it was trained on.
        licence: of the repository, by its Hub identifier.

    Raises:
        ValueError: if the folder holds no retriever with its processor, or not what the form needs, or an adapter's base is
            missing or another one.
    """
    _check_model(folder)
    if form == "as it is":
        _copy(folder, target)
        if is_adapter_alone(target):
            set_base(target, _base_of(target, base))
    else:
        model = _with_adapter(folder, form)
        processor = load_processor(str(folder))
        if form == "adapter":
            save_adapter(model, processor, target, _base_of(folder, base))
        else:
            model.merge_adapter()
            save_retriever(model, processor, target)
        for name in RECORD_FILES:
            if (folder / name).exists():
                _copy_entry(folder / name, target / name)
    write_card(target, repo_id, licence)


def name_itself_as_base(target: Path, repo_id: str) -> None:
    """Clients of the Hub look for the base of an adapter by name, which in a full repository is the repository itself.

    To be done last, as not every client still loads such a folder where it lies.
    """
    if (target / "adapter_config.json").is_file() and not is_adapter_alone(target):
        set_base(target, repo_id)


def stage_dataset(folder: Path, target: Path, repo_id: str, licence: str | None, source: str | None) -> None:
    """Writes into `target` what is to be published of a data set, with its card.

    Raises:
        ValueError: if the folder holds no data set in a documented form, or not all of its pictures.
    """
    _copy(folder, target)
    write_dataset_card(target, repo_id, licence, source)
    missing = [name for metadata in sorted(target.rglob(METADATA)) for name in _missing_pictures(metadata)]
    if missing:
        raise ValueError(f"{folder} lacks {len(missing)} of its pictures, such as {missing[0]}; add them, or remove their rows")


def _missing_pictures(metadata: Path) -> list[str]:
    """What a `metadata.jsonl` names, but is not there."""
    rows = [json.loads(line) for line in metadata.read_text(encoding="utf-8").split("\n") if line.strip()]
    columns = {column for row in rows for column in row if column == IMAGE or column.endswith(f"_{IMAGE}")}
    named = [row[column] for row in rows for column in sorted(columns) if row.get(column)]
    return [name for name in named if not (metadata.parent / name).is_file()]


def _copy(folder: Path, target: Path) -> None:
    names = {path.name for path in folder.iterdir()}
    for name in sorted(names - (private(folder, names) - {ENTRIES})):
        _copy_entry(folder / name, target / name)


def _copy_entry(path: Path, target: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.copytree(path, target, symlinks=True, copy_function=_copy_file, ignore=private)
    else:
        _copy_file(path, target)


def _copy_file(path: str | Path, target: str | Path) -> None:
    """A second name for a large file is enough, where the file system can give it one."""
    if Path(path).suffix.lower() in LARGE and not Path(path).is_symlink():
        with suppress(OSError):
            os.link(path, target)
            return
    shutil.copy2(path, target, follow_symlinks=False)


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
