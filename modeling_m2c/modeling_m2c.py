"""M2C: CLIP as a composed image retriever."""

from dataclasses import dataclass

import torch
from torch import nn
from transformers import CLIPModel
from transformers import initialization as init
from transformers.masking_utils import create_causal_mask
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.models.clip.modeling_clip import CLIPEncoder, CLIPOutput
from transformers.utils import ModelOutput, logging

from .configuration_m2c import M2CConfig
from .residual_adapter import ResidualAdapter
from .token_mapper import TokenMapper, VisualSemanticInjection, patch_grid


@dataclass
class ReferenceEncoding(ModelOutput):
    """What a reference image contributes to a composed query; independent of the text.

    Args:
        pseudo_word (`torch.Tensor` of shape `(batch_size, text_hidden_size)`):
            The pseudo-word token: takes the place of an input embedding.
        keys_values (`tuple[torch.Tensor]`, one for each injection layer):
            Keys and values of its cross-attention, of shape
            `(batch_size, injection_num_layers, 2, num_patches, injection_hidden_size)`.
    """

    pseudo_word: torch.Tensor | None = None
    keys_values: tuple[torch.Tensor, ...] | None = None


class M2CModel(CLIPModel):
    """CLIP with a token mapper and visual semantic injection, for composed image retrieval (arXiv 2504.17990).

    [`~CLIPModel.get_image_features`] and [`~CLIPModel.get_text_features`] are CLIP's own, whatever was trained: composed
    queries run through `composing_encoder`, which shares the weights of CLIP's text encoder until an adapter is put on it.

    Example:

    ```python
    >>> from transformers import AutoModel, AutoProcessor

    >>> model = AutoModel.from_pretrained("you/m2c-clip", trust_remote_code=True)
    >>> processor = AutoProcessor.from_pretrained("you/m2c-clip", trust_remote_code=True)

    >>> query = model.get_composed_features(**processor(images=reference, text="is red", return_tensors="pt"))
    >>> gallery = model.get_image_features(**processor(images=pictures, return_tensors="pt"))
    ```
    """

    config: M2CConfig
    config_class = M2CConfig

    def __init__(self, config: M2CConfig):
        super().__init__(config)
        self.composing_encoder = CLIPEncoder(self.text_model.config)
        self.token_mapper = TokenMapper(config)
        self.semantic_injection = VisualSemanticInjection(config) if config.injection_layers else None
        self.residual_adapters = nn.ModuleDict(
            {str(layer): ResidualAdapter(config) for layer in config.residual_adapter_layers}
        )
        self.residual_adapters_enabled = True
        # On the instance, as CLIPModel's own __init__ resolves the names before composing_encoder exists.
        self._tied_weights_keys = {r"composing_encoder\.(?!.*lora_)": r"text_model\.encoder\."}
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        return self.text_model.embeddings.token_embedding

    def set_input_embeddings(self, value: nn.Module):
        self.text_model.embeddings.token_embedding = value

    @torch.no_grad()
    def _init_weights(self, module: nn.Module):
        super()._init_weights(module)
        if isinstance(module, (TokenMapper, VisualSemanticInjection)):
            # Scaled to the fan-in, as the published modules were: ReLU layers with CLIP's std of 0.02 would start out silent.
            for child in module.modules():
                if isinstance(child, (nn.Linear, nn.Conv2d)):
                    init.kaiming_uniform_(child.weight, a=5**0.5)

    def get_image_tokens(self, pixel_values: torch.Tensor, interpolate_pos_encoding: bool = False) -> torch.Tensor:
        """All vision tokens in the space of CLIP's image embedding.

        Args:
            pixel_values (`torch.Tensor` of shape `(batch_size, num_channels, height, width)`).
            interpolate_pos_encoding (`bool`): whether to accept other image sizes than the checkpoint's.

        Returns:
            `torch.Tensor` of shape `(batch_size, 1 + num_patches, projection_dim)`; token 0 is CLIP's image embedding,
            un-normalised.
        """
        vision = self.vision_model(pixel_values, interpolate_pos_encoding=interpolate_pos_encoding)
        return self.visual_projection(self.vision_model.post_layernorm(vision.last_hidden_state))

    def average_patches(self, image_tokens: torch.Tensor, grid: tuple[int, int] | None = None) -> torch.Tensor:
        """Averages patch tokens to the square grid of `injection_grid_size`, if the model has one.

        Args:
            image_tokens (`torch.Tensor` of shape `(batch_size, 1 + num_patches, projection_dim)`): from `get_image_tokens`.
            grid (`tuple[int, int]`, *optional*): rows and columns of the patches; a square by default.

        Returns:
            `torch.Tensor` of shape `(batch_size, 1 + injection_grid_size**2, projection_dim)`; tokens that have this grid
            already, and token 0, stay as they are.

        Raises:
            ValueError: if the number of patches does not fit the grid, or the grid is not a multiple of `injection_grid_size`.
        """
        side = self.config.injection_grid_size
        rows, columns = patch_grid(image_tokens.shape[1] - 1, grid)
        if side is None or (rows, columns) == (side, side):
            return image_tokens
        if rows % side or columns % side:
            raise ValueError(f"{rows} x {columns} patches cannot be averaged to injection_grid_size {side} x {side}")
        blocks = image_tokens[:, 1:].unflatten(1, (side, rows // side, side, columns // side))
        return torch.cat([image_tokens[:, :1], blocks.mean(dim=(2, 4)).flatten(1, 2)], dim=1)

    def encode_reference(self, image_tokens: torch.Tensor, grid: tuple[int, int] | None = None) -> ReferenceEncoding:
        """The image side of a composed query.

        Args:
            image_tokens (`torch.Tensor` of shape `(batch_size, 1 + num_patches, projection_dim)`): from `get_image_tokens`, or
                `average_patches` of them.
            grid (`tuple[int, int]`, *optional*): rows and columns of the patches; a square by default.

        Raises:
            ValueError: if the number of patches does not fit the grid; see also `average_patches`.
        """
        keys_values = ()
        if self.semantic_injection is not None:
            patches = self.average_patches(image_tokens, grid)[:, 1:]
            keys_values = self.semantic_injection.encode_patches(patches, None if self.config.injection_grid_size else grid)
        return ReferenceEncoding(pseudo_word=self.token_mapper(image_tokens[:, 0]), keys_values=keys_values)

    def compose(
        self,
        reference: ReferenceEncoding,
        input_ids: torch.LongTensor,
        pseudo_word_position: torch.LongTensor,
        attention_mask: torch.Tensor | None = None,
    ) -> BaseModelOutputWithPooling:
        """The text side of a composed query: runs a prompt with the pseudo-word of a reference image.

        Args:
            reference ([`ReferenceEncoding`]): from `encode_reference`.
            input_ids (`torch.LongTensor` of shape `(batch_size, sequence_length)`): the prompt.
            pseudo_word_position (`torch.LongTensor` of shape `(batch_size,)`): where in the prompt the pseudo-word stands. A
                model without injection also takes `(batch_size, num_positions)`, padded with -1.
            attention_mask (`torch.Tensor` of shape `(batch_size, sequence_length)`, *optional*).

        Returns:
            [`~transformers.modeling_outputs.BaseModelOutputWithPooling`]; `pooler_output` of shape
            `(batch_size, projection_dim)` is the composed feature, un-normalised.

        Raises:
            RuntimeError: if the checkpoint's adapter was not loaded.
            ValueError: if a model with injection is given several positions.
        """
        if self.config.has_composing_adapter and not self._hf_peft_config_loaded:
            # transformers leaves adapters out without a word where peft is missing.
            raise RuntimeError(
                "this checkpoint has a composing adapter that was not loaded: `pip install peft` and load it again, or set "
                "`model.config.has_composing_adapter = False` to use the model as it was before stage 2"
            )
        if pseudo_word_position.ndim > 1 and self.semantic_injection is not None:
            raise ValueError("with injection the pseudo-word stands at one position of a prompt, not at several")
        rows = torch.arange(input_ids.shape[0], device=input_ids.device)
        end_of_text = self._end_of_text_position(input_ids)
        positions = torch.arange(input_ids.shape[1], device=input_ids.device)
        at_pseudo_word = (positions[:, None] == pseudo_word_position.reshape(rows.shape[0], 1, -1)).any(dim=-1)

        embeddings = self.text_model.embeddings
        tokens = embeddings.token_embedding(input_ids)
        pseudo_word = reference.pseudo_word[:, None].to(tokens.dtype)
        hidden_states = embeddings(inputs_embeds=torch.where(at_pseudo_word[..., None], pseudo_word, tokens))
        mask = create_causal_mask(
            config=self.text_model.config,
            inputs_embeds=hidden_states,
            attention_mask=attention_mask,
            past_key_values=None,
        )
        keys_values = dict(zip(self.config.injection_layers, reference.keys_values))
        for index, layer in enumerate(self.composing_encoder.layers):
            hidden_states = layer(hidden_states, mask, is_causal=True)
            if index in keys_values:
                injected = self.semantic_injection.blocks[str(index)](
                    hidden_states[rows, pseudo_word_position], hidden_states[rows, end_of_text], keys_values[index]
                )
                hidden_states = torch.where(at_pseudo_word[..., None], hidden_states + injected[:, None], hidden_states)
            if self.residual_adapters_enabled and str(index) in self.residual_adapters:
                hidden_states = self.residual_adapters[str(index)](hidden_states)

        hidden_states = self.text_model.final_layer_norm(hidden_states)
        return BaseModelOutputWithPooling(
            last_hidden_state=hidden_states,
            pooler_output=self.text_projection(hidden_states[rows, end_of_text]),
        )

    def _end_of_text_position(self, input_ids: torch.LongTensor) -> torch.LongTensor:
        eos_token_id = self.text_model.config.eos_token_id
        # int: ONNX has no argmax over int64.
        if eos_token_id == 2:
            # Checkpoints with this id are older than transformers' fix of it; there end-of-text is the highest token id.
            return input_ids.int().argmax(dim=-1)
        return (input_ids == eos_token_id).int().argmax(dim=-1)

    def get_composed_features(
        self,
        input_ids: torch.LongTensor,
        pixel_values: torch.Tensor,
        pseudo_word_position: torch.LongTensor,
        attention_mask: torch.Tensor | None = None,
        interpolate_pos_encoding: bool = False,
    ) -> BaseModelOutputWithPooling:
        """Features of composed queries: a reference image and a modification text each.

        Takes what [`M2CProcessor`] returns for `images` and `text`.

        Args:
            input_ids (`torch.LongTensor` of shape `(batch_size, sequence_length)`): prompts with a pseudo-word.
            pixel_values (`torch.Tensor` of shape `(batch_size, num_channels, height, width)`): reference images.
            pseudo_word_position (`torch.LongTensor` of shape `(batch_size,)`): where the pseudo-word stands.
            attention_mask (`torch.Tensor` of shape `(batch_size, sequence_length)`, *optional*).
            interpolate_pos_encoding (`bool`): whether to accept other image sizes than the checkpoint's.

        Returns:
            [`~transformers.modeling_outputs.BaseModelOutputWithPooling`]; `pooler_output` of shape
            `(batch_size, projection_dim)`, un-normalised, to be compared by cosine with `get_image_features`.
        """
        patch_size = self.config.vision_config.patch_size
        grid = (pixel_values.shape[-2] // patch_size, pixel_values.shape[-1] // patch_size)
        image_tokens = self.get_image_tokens(pixel_values, interpolate_pos_encoding)
        reference = self.encode_reference(image_tokens, grid)
        return self.compose(reference, input_ids, pseudo_word_position, attention_mask)

    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        pixel_values: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        pseudo_word_position: torch.LongTensor | None = None,
        **kwargs,
    ) -> BaseModelOutputWithPooling | CLIPOutput:
        """Composed features when the inputs hold a pseudo-word (see `get_composed_features`), else CLIP's own forward."""
        if pseudo_word_position is None:
            return super().forward(input_ids, pixel_values, attention_mask, **kwargs)
        return self.get_composed_features(input_ids, pixel_values, pseudo_word_position, attention_mask, **kwargs)

    def load_adapter(self, peft_model_id: str | None = None, adapter_name: str | None = None, *args, **kwargs):
        """[`~transformers.PreTrainedModel.load_adapter`], for adapters that were trained on this model.

        Args:
            peft_model_id (`str`, *optional*): folder or repository of the adapter.
            adapter_name (`str`, *optional*): what to call it here, `"default"` by default.

        Raises:
            ValueError: if the adapter was trained on another base, or lacks weights.
        """
        adapter_name = adapter_name or "default"
        verbosity = logging.get_verbosity()
        logging.set_verbosity_error()  # a second adapter's report lists the first one's weights as missing
        try:
            info = super().load_adapter(peft_model_id, adapter_name, *args, **kwargs)
        finally:
            logging.set_verbosity(verbosity)
            # Also when loading failed: that the base is another one is why weights do not fit.
            self._check_base(peft_model_id, adapter_name)
        missing = sorted(key for key in info.missing_keys if f".{adapter_name}." in key)
        if missing:
            self.delete_adapter(adapter_name)
            raise ValueError(f"the adapter {peft_model_id!r} lacks {len(missing)} weights, {missing[0]} for one")
        # A full repository names no base. Saved alone, its adapter finds this one.
        self.peft_config[adapter_name].base_model_name_or_path = (
            self.peft_config[adapter_name].base_model_name_or_path or self.config.name_or_path
        )
        return info

    def _check_base(self, adapter: str | None, adapter_name: str) -> None:
        if not self._hf_peft_config_loaded or adapter_name not in self.peft_config:
            return
        origin = self.peft_config[adapter_name].auto_mapping or {}
        trained_on, own = origin.get("base_fingerprint"), self.config.fingerprint
        if trained_on not in (None, own):
            self.delete_adapter(adapter_name)
            raise ValueError(
                f"the adapter {adapter!r} was trained on {origin.get('base_name')!r} (fingerprint {str(trained_on)[:12]}), "
                f"which {self.config.name_or_path!r} (fingerprint {str(own)[:12]}) is not; load it on its own base"
            )

    def delete_adapter(self, adapter_names: list[str] | str) -> None:
        """[`~transformers.PreTrainedModel.delete_adapter`]. Without any adapter the model is what stage 1 left."""
        super().delete_adapter(adapter_names)
        self.config.has_composing_adapter = self._hf_peft_config_loaded

    def disable_adapters(self) -> None:
        """Composes without adapters, as stage 1 left the model. Raises `ValueError` if there are none."""
        self.residual_adapters_enabled = False
        if self._hf_peft_config_loaded or not self.residual_adapters:
            super().disable_adapters()

    def enable_adapters(self) -> None:
        """Undoes `disable_adapters`. Raises `ValueError` if there are no adapters."""
        self.residual_adapters_enabled = True
        if self._hf_peft_config_loaded or not self.residual_adapters:
            super().enable_adapters()

    @torch.no_grad()
    def merge_adapter(self) -> None:
        """Folds the active adapter into the weights of `composing_encoder`, for use without `peft`.

        The composing text encoder no longer shares its weights with CLIP's, which stay as they are; other adapters are
        dropped. Residual adapters stay what they are: part of the model.

        Raises:
            ValueError: if no adapter is loaded, or adapters are switched off.
        """
        active = self.active_adapters()
        wrapped = {name: module for name, module in self.composing_encoder.named_modules() if hasattr(module, "get_base_layer")}
        if any(module.disable_adapters for module in wrapped.values()):
            raise ValueError("the adapters are switched off; call enable_adapters() before merging")
        self._untie_composing_encoder()
        for name, module in wrapped.items():
            module.merge(safe_merge=True, adapter_names=active)
            self.composing_encoder.set_submodule(name, module.get_base_layer())
        del self.peft_config
        self._hf_peft_config_loaded = False
        # What loading the adapter left; saving would rename the weights back by it, into an adapter's names.
        self._weight_conversions = None
        self.config.update({"has_composing_adapter": False, "fingerprint": None})

    def _untie_composing_encoder(self) -> None:
        for module in self.composing_encoder.modules():
            for name, parameter in module.named_parameters(recurse=False):
                setattr(module, name, nn.Parameter(parameter.clone(), requires_grad=parameter.requires_grad))
        self.all_tied_weights_keys = {}
        self.config.tie_word_embeddings = False


__all__ = ["M2CModel", "ReferenceEncoding"]
