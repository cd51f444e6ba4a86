"""`m2c quickstart`: from a CLIP to a composed retriever on the scenes world, measured and saved."""

from .experiment import FULL, QUICK, quickstart


__all__ = ["FULL", "QUICK", "quickstart"]
