"""Configuration of M2C models."""

from transformers import CLIPConfig


# The blocks of a text tower of 12 after which the published model injects: 3, 7, 9 and 11 (0-based). The last one is left
# out: it changes the pseudo-word position only, the feature is read at end-of-text, so nothing depends on it.
PUBLISHED_DEPTH = 12
PUBLISHED_INJECTION_LAYERS = (3, 7, 9)


def default_injection_layers(num_hidden_layers: int) -> list[int]:
    """The published injection layers, scaled to a text tower of `num_hidden_layers` blocks; never the last block."""
    scaled = {round((layer + 1) * num_hidden_layers / PUBLISHED_DEPTH) - 1 for layer in PUBLISHED_INJECTION_LAYERS}
    return sorted(layer for layer in scaled if 0 <= layer < num_hidden_layers - 1)


class M2CConfig(CLIPConfig):
    r"""
    Configuration of an [`M2CModel`]: a [`~transformers.CLIPConfig`] and the modules that M2C adds to CLIP.

    `text_config`, `vision_config` and `projection_dim` are those of the CLIP underneath.

    Args:
        mapper_hidden_size (`int`, *optional*, defaults to 512):
            Width of the two hidden layers of the token mapper.
        mapper_hidden_act (`str`, *optional*, defaults to `"relu"`):
            Activation of the token mapper: `"relu"` in M2C and Pic2Word, `"gelu"` in SEARLE and LinCIR.
        mapper_dropout (`float`, *optional*, defaults to 0.1):
            Dropout of the token mapper.
        injection_layers (`list[int]`, *optional*):
            Text blocks (0-based) after which visual semantics are injected at the pseudo-word. An empty list makes a
            mapper-only model (Pic2Word, SEARLE, LinCIR). By default the published 3, 7, 9 of 12, scaled to the depth.
        injection_hidden_size (`int`, *optional*, defaults to 128):
            Width of the cross-attention.
        injection_num_attention_heads (`int`, *optional*, defaults to 8):
            Heads of the cross-attention.
        injection_num_layers (`int`, *optional*, defaults to 2):
            Cross-attention layers of each injection.
        injection_dropout (`float`, *optional*, defaults to 0.1):
            Dropout of the injection.
        injection_grid_size (`int`, *optional*):
            Patch tokens are averaged to a square grid of this side before the injection, which makes it cheaper; it must
            divide the side of the patch grid. By default they stay as they are.
        residual_adapter_layers (`list[int]`, *optional*):
            Text blocks (0-based) after which a residual low-rank adapter acts on composed queries. Only checkpoints of the
            authors' own stage 2 have any.
        residual_adapter_rank (`int`, *optional*, defaults to 128):
            Rank of the residual adapters.
        has_composing_adapter (`bool`, *optional*, defaults to `False`):
            Whether the checkpoint comes with an adapter of the composing text encoder (stage 2), which needs `peft`.
        fingerprint (`str`, *optional*):
            Hash of the weights, as training and conversion write it. An adapter records that of its base, and goes on no
            other.
        initializer_range (`float`, *optional*, defaults to 0.02):
            Standard deviation of new weights that no module initialises in its own way.
        tie_word_embeddings (`bool`, *optional*, defaults to `True`):
            Whether the composing text encoder shares its weights with CLIP's text encoder. Adapters act on the composing
            one only. `False` once an adapter has been merged.

    Raises:
        ValueError: if a layer does not exist, the heads do not divide the injection width, or `injection_grid_size` does not
            divide the patch grid.
    """

    model_type = "m2c"

    mapper_hidden_size: int = 512
    mapper_hidden_act: str = "relu"
    mapper_dropout: float = 0.1
    injection_layers: list[int] | None = None
    injection_hidden_size: int = 128
    injection_num_attention_heads: int = 8
    injection_num_layers: int = 2
    injection_dropout: float = 0.1
    injection_grid_size: int | None = None
    residual_adapter_layers: list[int] | None = None
    residual_adapter_rank: int = 128
    has_composing_adapter: bool = False
    fingerprint: str | None = None
    initializer_range: float = 0.02
    tie_word_embeddings: bool = True

    def __post_init__(self, **kwargs):
        super().__post_init__(**kwargs)
        depth = self.text_config.num_hidden_layers
        if self.injection_layers is None:
            self.injection_layers = default_injection_layers(depth)
        for name in ("injection_layers", "residual_adapter_layers"):
            layers = sorted(set(getattr(self, name) or []))
            if any(not 0 <= layer < depth for layer in layers):
                raise ValueError(f"{name} {layers} must lie in 0..{depth - 1}, the blocks of the text tower")
            setattr(self, name, layers)
        if self.injection_hidden_size % self.injection_num_attention_heads:
            raise ValueError(
                f"injection_hidden_size ({self.injection_hidden_size}) must be a multiple of "
                f"injection_num_attention_heads ({self.injection_num_attention_heads})"
            )
        side = self.vision_config.image_size // self.vision_config.patch_size
        if self.injection_grid_size is not None and (self.injection_grid_size < 1 or side % self.injection_grid_size):
            raise ValueError(
                f"injection_grid_size ({self.injection_grid_size}) must divide the patch grid of this CLIP, which is {side} x "
                f"{side}"
            )


__all__ = ["M2CConfig", "default_injection_layers"]
