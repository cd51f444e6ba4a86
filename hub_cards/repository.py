"""What a folder of a model holds, and what its records say."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from .licences import is_on_hub
from .publishable import publishable


Kind = Literal["base", "full", "adapter", "merged", "converted"]
# Those that a card shows.
CARD_PICTURES = ("retrieval.png", "learning_curves.png")
# Ways of mapping an image to a word, with their papers.
METHODS = {
    "m2c": {"title": "M2C", "paper": "2504.17990"},
    "pic2word": {"title": "Pic2Word", "paper": "2302.03084"},
    "searle": {"title": "SEARLE", "paper": "2303.15247"},
    "lincir": {"title": "LinCIR", "paper": "2312.01998"},
}
# Their checkpoints hold a token mapper only; the others carry their CLIP.
MAPPERS_ONLY = ("searle", "lincir")


@dataclass(frozen=True)
class Repository:
    """A folder that `AutoModel.from_pretrained` loads.

    Args:
        kind: `"base"`, what stage 1 wrote; `"full"`, that and an adapter of stage 2; `"adapter"`, the adapter alone;
            `"merged"`, an adapter folded into the weights; `"converted"`, weights of other authors.
        config: `config.json`, empty where only the base has one.
        adapter: `adapter_config.json`, empty where there is none.
        processor: `processor_config.json`, empty where there is none.
        stages: `training.json` of each stage, the first one first, as far as records have come down.
        conversion: `conversion.json`, of this model or of the one that training started from; empty where there is none.
        pictures: names of the pictures that lie in the folder.
        works_with: other ways to load it, `"pipeline"` and `"sentence-transformers"`.
    """

    kind: Kind
    config: dict
    adapter: dict
    processor: dict
    stages: list[dict]
    conversion: dict
    pictures: list[str]
    works_with: list[str]

    @property
    def method(self) -> str:
        """Whose way of mapping it is, a key of `METHODS`."""
        first = self.stages[0]["config"] if self.stages else {}
        if self.conversion:
            return self.conversion["method"]
        if first.get("objective") == "text_only":
            return "lincir"
        is_mapper_only = first.get("mapper_only") or self.config.get("injection_layers") == []
        return "pic2word" if is_mapper_only else "m2c"

    @property
    def carries_clip(self) -> bool:
        """Whether the checkpoint that was converted came with its CLIP, so that nobody knows it by a name."""
        return bool(self.conversion) and self.method not in MAPPERS_ONLY

    @property
    def clip(self) -> str | None:
        """Name of the CLIP underneath, `None` where no record tells it."""
        if self.conversion:
            return None if self.carries_clip else self.conversion.get("clip")
        first = self.stages[0]["config"] if self.stages else {}
        return first.get("model") if first.get("stage") == 1 else None

    @property
    def base(self) -> str | None:
        """Name of the model that this one was made from, `None` where no record tells it."""
        if self.kind == "adapter":
            return self.adapter.get("base_model_name_or_path") or (self.adapter.get("auto_mapping") or {}).get("base_name")
        return self.stages[-1]["config"].get("model") if self.stages else self.clip

    @property
    def datasets(self) -> list[str]:
        """Names of what the stages were trained on."""
        return [record["config"].get("dataset") for record in self.stages]

    @property
    def base_on_hub(self) -> str | None:
        """The nearest ancestor that is a repository of the Hub. An adapter fits its own base only."""
        names = [self.base] if self.kind == "adapter" else [self.base, self.clip]
        return next(filter(is_on_hub, names), None)


def read_repository(folder: str | Path) -> Repository:
    """Reads the records of a model's folder; absolute paths in them shrink to their last part.

    Raises:
        ValueError: if there is no model in the folder, or a record cannot be read; the message names the file.
    """
    folder = Path(folder)
    config, adapter = read_json(folder / "config.json"), read_json(folder / "adapter_config.json")
    if not config and not adapter:
        raise ValueError(f"there is no model in {folder}: it has neither config.json nor adapter_config.json")
    conversion = read_json(folder / "conversion.json")
    stages, origin = _lineage(read_json(folder / "training.json"), folder)
    if (conversion or origin) and (conversion or origin).get("method") not in METHODS:
        raise ValueError(f"the record of the conversion in {folder} names no method out of {', '.join(METHODS)}")
    has_pipeline = "custom_pipelines" in config
    has_sentence_transformers = (folder / "modules.json").is_file()
    return Repository(
        kind=_kind(config, adapter, conversion),
        config=config,
        adapter=adapter,
        processor=read_json(folder / "processor_config.json"),
        stages=stages,
        conversion=conversion or origin,
        pictures=[name for name in CARD_PICTURES if (folder / name).is_file()],
        works_with=["pipeline"] * has_pipeline + ["sentence-transformers"] * has_sentence_transformers,
    )


def _kind(config: dict, adapter: dict, conversion: dict) -> Kind:
    if conversion:
        return "converted"
    if adapter:
        return "full" if config else "adapter"
    return "base" if config.get("tie_word_embeddings", True) else "merged"


def _lineage(record: dict, folder: Path) -> tuple[list[dict], dict]:
    """Records of the stages, the first one first, and of a conversion before them."""
    stages = []
    while "config" in record:
        if not isinstance(record["config"], dict):
            raise ValueError(f"{folder / 'training.json'} is no record of a training run: its 'config' is no object")
        stages.insert(0, record)
        record = record.get("started_from")
        record = record if isinstance(record, dict) else {}
    return stages, record if "method" in record else {}


def read_json(path: Path) -> dict:
    """An object of JSON without absolute paths, empty if there is no such file. Raises `ValueError` if it cannot be read."""
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is no complete JSON ({error})") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} should hold an object; it holds a {type(content).__name__}")
    return publishable(content)
