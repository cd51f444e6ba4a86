"""Checkpoints of the original authors, as M2C models."""

from .convert import convert, load_mapper, load_original


__all__ = ["convert", "load_mapper", "load_original"]
