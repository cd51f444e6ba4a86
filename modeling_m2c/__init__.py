"""The model that ships with a checkpoint."""

from transformers import AutoConfig, AutoModel

from .configuration_m2c import M2CConfig, default_injection_layers
from .modeling_m2c import M2CModel, ReferenceEncoding
from .residual_adapter import ResidualAdapter
from .token_mapper import InjectionBlock, TokenMapper, VisualSemanticInjection


AutoConfig.register("m2c", M2CConfig, exist_ok=True)
AutoModel.register(M2CConfig, M2CModel, exist_ok=True)
# With this `save_pretrained` copies the code into the checkpoint, for users who do not have this package.
M2CConfig.register_for_auto_class()
M2CModel.register_for_auto_class("AutoModel")

__all__ = [
    "InjectionBlock",
    "M2CConfig",
    "M2CModel",
    "ReferenceEncoding",
    "ResidualAdapter",
    "TokenMapper",
    "VisualSemanticInjection",
    "default_injection_layers",
]
