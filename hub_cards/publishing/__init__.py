"""Sharing models and data sets on the Hub."""

from .publish import Options, publish


__all__ = ["Options", "publish"]
