"""Where features are kept from one run to the next."""

import os
from pathlib import Path


def cache_folder(chosen: str | Path | None = None) -> Path:
    """The folder that was chosen, else the one that `M2C_CACHE` in the environment names, else `~/.cache/m2c`."""
    return Path(chosen or os.environ.get("M2C_CACHE") or "~/.cache/m2c").expanduser()
