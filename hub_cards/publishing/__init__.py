"""Sharing models and data sets on the Hub."""

from .publication import Options, publish
from .secrets import without_secrets
from .staging import Results


__all__ = ["Options", "Results", "publish", "without_secrets"]
