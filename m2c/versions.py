"""Which releases a run or an evaluation was made with."""

import platform
from importlib.metadata import PackageNotFoundError, version


PACKAGES = ("m2c", "torch", "transformers", "peft", "accelerate", "datasets", "Pillow")


def versions() -> dict[str, str | None]:
    """Releases of Python and of the packages that decide a result, by name; `None` for one that is used without installing."""
    return {"python": platform.python_version(), **{package: _version(package) for package in PACKAGES}}


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
