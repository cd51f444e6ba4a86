"""The composing adapters of stage 2: LoRA on the composing text encoder, and on nothing else."""

from peft import LoraConfig

from m2c.checkpoints import public_name
from m2c.training.config import TrainingConfig
from modeling_m2c import M2CModel


# Anchored: the names alone would also hit the vision tower and CLIP's own text encoder.
TARGET_MODULES = r"composing_encoder\.layers\.\d+\.(self_attn\.(q|k|v|out)_proj|mlp\.fc[12])"


def add_composing_adapter(model: M2CModel, config: TrainingConfig) -> None:
    """Puts new adapters on attention and MLP projections. Until trained they change nothing.

    Raises:
        ValueError: if the model already has adapters.
    """
    if model._hf_peft_config_loaded:
        raise ValueError(f"{config.model!r} already has composing adapters; start stage 2 from what stage 1 wrote")
    adapter = LoraConfig(
        r=config.lora_rank,
        lora_alpha=config.lora_alpha,
        lora_dropout=config.lora_dropout,
        target_modules=TARGET_MODULES,
        # The field is PEFT's place for what the base is; a model refuses adapters of another fingerprint.
        auto_mapping={
            "base_model_class": "M2CModel",
            "parent_library": "modeling_m2c",
            "base_name": public_name(config.model),
            "base_fingerprint": model.config.fingerprint,
        },
    )
    model.add_adapter(adapter, adapter_name="default")
