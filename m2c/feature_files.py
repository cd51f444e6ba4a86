"""Files of features, which are there as a whole or not at all."""

from pathlib import Path
from uuid import uuid4

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from .whole_files import PARTIAL, whole_file


def write_features(path: Path, features: dict[str, torch.Tensor], metadata: dict[str, str] | None = None) -> None:
    """Writes a safetensors file that appears under its name when it is complete.

    Raises:
        OSError: if it cannot be written, for want of space for one; nothing is left of it then.
    """
    # Processes of two machines that share the folder may have the same number.
    own = f".{uuid4().hex}{PARTIAL}"
    try:
        with whole_file(path, own) as partial:
            save_file({name: tensor.contiguous() for name, tensor in features.items()}, partial, metadata=metadata)
    except (OSError, SafetensorError) as error:
        raise OSError(
            f"features cannot be stored in {path.parent}: {error}; what was stored before is kept. Make room, or choose "
            "another --cache_dir"
        ) from error
