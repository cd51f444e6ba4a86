"""Features of images on disk, found by their digests."""

import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from m2c.feature_files import write_features


class FeatureStore:
    """Features by digest, in files that are written once and appended by adding another. A run that is killed loses none.

    Args:
        folder: of one kind of features of one model; made if it does not exist.
    """

    def __init__(self, folder: Path):
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.place: dict[str, tuple[Path, int]] = {}
        for path in sorted(folder.glob("*.safetensors")):
            self._add(path)

    def missing(self, digests: Iterable[str]) -> list[str]:
        """Those without features, each once, in order."""
        return [digest for digest in dict.fromkeys(digests) if digest not in self.place]

    def append(self, digests: Sequence[str], features: torch.Tensor) -> None:
        """Adds features of shape `(len(digests), ...)`, all or nothing. What another process wrote is taken as it is.

        Raises:
            OSError: if they cannot be written.
        """
        name = hashlib.sha256("".join(digests).encode()).hexdigest()[:32]
        path = self.folder / f"{name}.safetensors"
        if path.exists():
            self._add(path)
        if not self.missing(digests):
            return
        write_features(path, {"features": features}, {"digests": json.dumps(list(digests))})
        self._add(path)

    def read(self, digests: Sequence[str]) -> torch.Tensor:
        """Features of shape `(len(digests), ...)` in the order asked for. Raises `KeyError` if some are missing."""
        wanted: dict[Path, list[tuple[int, int]]] = {}
        for position, digest in enumerate(digests):
            path, row = self.place[digest]
            wanted.setdefault(path, []).append((position, row))
        features = None
        for path, rows in wanted.items():
            with safe_open(path, "pt") as file:
                stored = file.get_tensor("features") if len(rows) > 1 else file.get_slice("features")
                for position, row in rows:
                    value = stored[row]
                    if features is None:
                        features = value.new_empty(len(digests), *value.shape)
                    features[position] = value
        return features

    def _add(self, path: Path) -> None:
        try:
            with safe_open(path, "pt") as file:
                digests = json.loads(file.metadata()["digests"])
                if file.get_slice("features").get_shape()[0] != len(digests):
                    raise ValueError("not as many features as digests")
        except (SafetensorError, KeyError, TypeError, ValueError, FileNotFoundError):
            # Cut short by a full disk or a crash: its images are encoded again. Another process may have seen it first.
            path.unlink(missing_ok=True)
            return
        self.place.update({digest: (path, row) for row, digest in enumerate(digests)})
