"""Training: the two stages of M2C under Accelerate."""

from .config import TrainingConfig
from .trainer import build_data, train


__all__ = ["TrainingConfig", "build_data", "train"]
