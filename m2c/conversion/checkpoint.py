"""Reads a checkpoint of somebody else's code: nothing in it is executed, and every tensor is accounted for."""

import argparse
import pickle
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path

import torch


def read_checkpoint(path: str | Path) -> dict:
    """The content of a file that `torch.save` wrote: tensors, and plain values.

    Raises:
        ValueError: if the file is missing, truncated, no checkpoint, or holds anything that would have to be executed.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"{path} is not a file; give the checkpoint itself, such as epoch_30.pt")
    try:
        # The authors keep their command line in the checkpoint; a Namespace is data.
        with torch.serialization.safe_globals([argparse.Namespace]):
            # Mapped, as the state of an optimiser may be larger than all that is wanted.
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except Exception as error:
        # A damaged pickle ends in whatever exception its first wrong byte leads to.
        raise ValueError(f"{path} was refused: {_reason(error)}") from error
    if not isinstance(content, Mapping):
        raise ValueError(f"{path} holds a {type(content).__name__}, not the dictionary that a checkpoint is")
    return dict(content)


def _reason(error: Exception) -> str:
    found = re.search(r"GLOBAL (\S+)", str(error))
    if isinstance(error, pickle.UnpicklingError) and found:
        return f"it holds {found[1]}; only tensors and plain values are read, because anything else could run code"
    return f"it is damaged, or no checkpoint of PyTorch ({type(error).__name__})"


class Tensors:
    """The tensors of one part of a checkpoint. Each is taken once, by name; what is left at the end is an error.

    Args:
        checkpoint: what `read_checkpoint` returned.
        part: the key of the part, such as `state_dict`.

    Raises:
        ValueError: if there is no such part, or it holds anything but tensors.
    """

    def __init__(self, checkpoint: dict, part: str):
        state_dict = checkpoint.get(part)
        if not isinstance(state_dict, Mapping):
            raise ValueError(f"the checkpoint has no {part!r}; it has {', '.join(map(repr, checkpoint)) or 'nothing'}")
        for name, value in state_dict.items():
            if not isinstance(value, torch.Tensor):
                raise ValueError(f"{part}[{name!r}] is a {type(value).__name__}, not a tensor")
        self.part = part
        # DistributedDataParallel puts "module." in front of every name.
        self._left = {str(name).removeprefix("module."): tensor for name, tensor in state_dict.items()}
        if len(self._left) < len(state_dict):
            raise ValueError(f"{part} holds some tensors twice, with and without 'module.' in front of their names")

    def __contains__(self, name: str) -> bool:
        return name in self._left

    def shape(self, name: str, ndim: int) -> tuple[int, ...]:
        """The shape of a tensor from which sizes are read. Raises `ValueError` if it is missing or has not `ndim` axes."""
        self._require(name)
        shape = tuple(self._left[name].shape)
        if len(shape) != ndim:
            raise ValueError(f"{self.part}[{name!r}] has shape {shape}, where {ndim} axes were expected")
        return shape

    def take(self, name: str, *shape: int) -> torch.Tensor:
        """Removes a tensor and returns it in float32. Raises `ValueError` if it is missing, misshapen or not finite."""
        tensor = self._pop(name, shape)
        if not tensor.is_floating_point() or tensor.layout != torch.strided or tensor.is_meta or not tensor.isfinite().all():
            raise ValueError(f"{self.part}[{name!r}] does not hold finite floats")
        return tensor.float()

    def take_count(self, name: str) -> torch.Tensor:
        """Removes a whole number and returns it. Raises `ValueError` if it is missing or anything else."""
        tensor = self._pop(name, ())
        if tensor.dtype != torch.int64:
            raise ValueError(f"{self.part}[{name!r}] is not a whole number")
        return tensor

    def drop(self, *names: str) -> None:
        """Forgets tensors that no model needs."""
        for name in names:
            self._left.pop(name, None)

    def count(self, prefix: str) -> int:
        """How many modules there are in the list whose names begin with `prefix`; the last one decides."""
        numbers = [name.removeprefix(prefix).split(".")[0] for name in self._left if name.startswith(prefix)]
        return max((int(number) + 1 for number in numbers if number.isdecimal()), default=0)

    def finish(self) -> None:
        """Raises `ValueError`, naming them, if tensors are left over: a model without them would be another one."""
        if self._left:
            names = ", ".join(sorted(self._left)[:5]) + (", ..." if len(self._left) > 5 else "")
            raise ValueError(f"{self.part} holds {len(self._left)} tensors that this layout does not know: {names}")

    def _pop(self, name: str, shape: tuple[int, ...]) -> torch.Tensor:
        self._require(name)
        tensor = self._left.pop(name)
        if tuple(tensor.shape) != shape:
            raise ValueError(f"{self.part}[{name!r}] has shape {tuple(tensor.shape)}, where {shape} was expected")
        return tensor

    def _require(self, name: str) -> None:
        if name not in self._left:
            raise ValueError(f"{self.part}[{name!r}] is missing")
