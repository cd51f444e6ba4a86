"""Records that `m2c evaluate --output` wrote, as they lie beside the model that they are of."""

import math
import re
from dataclasses import dataclass
from pathlib import Path

from .repository import read_json


RECORDS = "evaluation"
# Of a record: the repository of its benchmark on the Hub, which whoever publishes it may name.
DATASET = "dataset"
TITLES = {"cirr": "CIRR", "circo": "CIRCO", "fashioniq": "FashionIQ", "genecis": "GeneCIS", "scenes": "Scenes"}
FIELDS = {"benchmark": str, "split": str, "figures": dict, "parts": dict, "protocol": dict, "query": dict, "model": dict}
FIGURES = {"recall": "R@", "subset_recall": "subset R@", "mean_average_precision": "mAP@"}


@dataclass(frozen=True)
class Evaluation:
    """What one record says.

    Args:
        record: as `m2c evaluate` wrote it.
    """

    record: dict

    @property
    def name(self) -> str:
        """Of its files: benchmark, category if it is one of several, gallery if it is not the usual one, split."""
        benchmark, parts, gallery = self.record["benchmark"], list(self.record["parts"]), self.record["protocol"].get("gallery")
        category = parts[0] if len(parts) == 1 and parts[0] != benchmark else None
        variant = f"{gallery}-gallery" if gallery not in (None, "original") else None
        name = "-".join(filter(None, (benchmark, category, variant, self.record["split"])))
        return re.sub(r"[^\w.-]+", "-", name).lstrip(".-")

    @property
    def dataset(self) -> str:
        """The benchmark's repository on the Hub, or its own name."""
        return self.record.get(DATASET) or self.record["benchmark"]

    @property
    def title(self) -> str:
        return TITLES.get(self.record["benchmark"], self.record["benchmark"])

    @property
    def is_secret(self) -> bool:
        """Whether the split keeps its targets to itself, so that there can be no figures."""
        return not any(part["figures"] for part in self.record["parts"].values())

    @property
    def figures(self) -> list[str]:
        """Names of the figures that the protocol asks for."""
        return [f"{title}{k}" for kind, title in FIGURES.items() for k in self.record["protocol"].get(kind) or ()]

    @property
    def aspects(self) -> dict[str, float]:
        """Figures by semantic aspect."""
        return {name: value for name, value in self.record["figures"].items() if name not in self.figures}

    @property
    def rows(self) -> dict[str | None, dict]:
        """Parts by name, each with `figures`, `queries` and `gallery`; of several the figures of their mean too, as `None`."""
        parts = self.record["parts"]
        return {**parts, None: {"figures": self.record["figures"]}} if len(parts) > 1 else parts

    def measured(self) -> list[tuple[str | None, str, float]]:
        """Row, name and value in percent of every figure that is there."""
        found = [(row, name, part["figures"].get(name)) for row, part in self.rows.items() for name in self.figures]
        return [(row, name, value) for row, name, value in found if is_number(value)]


def is_number(value) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def read_evaluation(path: str | Path) -> dict:
    """A record of `m2c evaluate --output`: of the folder that it wrote, or of the `record.json` in it.

    Raises:
        ValueError: if there is none, or it is damaged.
    """
    path = Path(path)
    path = path / "record.json" if path.is_dir() else path
    if not path.is_file():
        raise ValueError(f"there is no {path}; m2c evaluate --output writes it")
    record = read_json(path)
    check_record(record, str(path))
    return record


def check_record(record: dict, place: str) -> None:
    """Raises `ValueError` if a record is not of the form of `m2c evaluate`; the message begins with `place`."""
    for field, kind in FIELDS.items():
        if not isinstance(record.get(field), kind):
            raise ValueError(f"{place} is no record of m2c evaluate --output: it has no {field!r}, or not as it should be")
    if not record["parts"] or not all(isinstance(part, dict) and "figures" in part for part in record["parts"].values()):
        raise ValueError(f"{place} is no record of m2c evaluate --output: its 'parts' have no 'figures'")


def read_evaluations(folder: str | Path) -> list[Evaluation]:
    """The records beside a model, by name. Raises `ValueError` if one is damaged, or its file has the name of another one."""
    evaluations = []
    for path in sorted(Path(folder, RECORDS).glob("*.json")):
        evaluation = Evaluation(read_evaluation(path))
        if path.stem != evaluation.name:
            raise ValueError(f"{path} holds the record of {evaluation.name}; call it {evaluation.name}.json")
        evaluations.append(evaluation)
    return evaluations
