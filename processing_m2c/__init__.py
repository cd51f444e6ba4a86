"""The processor that ships with a checkpoint."""

from transformers import AutoProcessor

from modeling_m2c import M2CConfig

from .processing_m2c import M2CProcessor


AutoProcessor.register(M2CConfig, M2CProcessor, exist_ok=True)
# With this `save_pretrained` copies the code into the checkpoint, for users who do not have this package.
M2CProcessor.register_for_auto_class()

__all__ = ["M2CProcessor"]
