"""Training: the two stages of M2C under Accelerate."""

from .config import TrainingConfig
from .trainer import train


__all__ = ["TrainingConfig", "train"]
