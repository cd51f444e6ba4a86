"""Training: the two stages of M2C under Accelerate."""

from .config import TrainingConfig
from .data import build_data
from .trainer import train


__all__ = ["TrainingConfig", "build_data", "train"]
