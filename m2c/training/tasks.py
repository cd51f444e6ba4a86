"""Model and loss in one module, one for each stage: what Accelerate wraps, so that all that is trained runs in `forward`."""

import torch
from torch import nn
from torch.nn.functional import normalize
from transformers import BatchFeature

from modeling_m2c import M2CModel, ReferenceEncoding

from .config import TrainingConfig
from .global_batch import BatchPlace, see_global_batch
from .objectives import composing_loss, soft_text_alignment, symmetric_info_nce


class _Task(nn.Module):
    def __init__(self, model: M2CModel, mapping_prompt: BatchFeature, config: TrainingConfig):
        super().__init__()
        self.model = model
        self.config = config
        self.place = BatchPlace(config.seed)
        self.register_buffer("prompt_ids", mapping_prompt.input_ids, persistent=False)
        self.register_buffer("prompt_position", mapping_prompt.pseudo_word_position, persistent=False)

    def map(self, reference: ReferenceEncoding) -> torch.Tensor:
        """Unit features of the mapping prompt "a photo of *", shape `(batch_size, projection_dim)`."""
        batch_size = len(reference.pseudo_word)
        prompt, position = self.prompt_ids.expand(batch_size, -1), self.prompt_position.expand(batch_size)
        return unit(self.model.compose(reference, prompt, position).pooler_output)


def unit(features: torch.Tensor) -> torch.Tensor:
    """Unit length, in float32 whatever the precision of the forward pass."""
    return normalize(features.float(), dim=-1)


def in_float32(features: torch.Tensor) -> torch.autocast:
    """Switches autocast off: at a temperature of 0.01 a cosine in bfloat16 is too coarse for a logit."""
    return torch.autocast(features.device.type, enabled=False)


class MappingTask(_Task):
    """Stage 1: trains token mapper and injection to write an image as a word. CLIP is frozen."""

    def __init__(self, model: M2CModel, mapping_prompt: BatchFeature, config: TrainingConfig):
        super().__init__(model, mapping_prompt, config)
        model.requires_grad_(False)
        for module in self.trained_modules():
            see_global_batch(module, self.place)
            module.requires_grad_(True)

    def trained_modules(self) -> list[nn.Module]:
        return [self.model.token_mapper] + [self.model.semantic_injection] * (self.model.semantic_injection is not None)

    def train(self, mode: bool = True):
        super().train(False)
        for module in self.trained_modules():
            module.train(mode)
        # Activation checkpointing asks the layers themselves; what is inside them stays in eval mode.
        for layer in self.model.composing_encoder.layers:
            layer.training = mode
        return self

    def retrieve(self, image_tokens: torch.Tensor, image_embeds: torch.Tensor, **_) -> tuple[torch.Tensor, torch.Tensor]:
        """Queries and what they should find: the mapping prompt of view A, and view B."""
        return self.map(self.model.encode_reference(image_tokens)), unit(image_embeds)

    def forward(self, image_tokens: torch.Tensor, image_embeds: torch.Tensor, caption_embeds: torch.Tensor) -> dict:
        """
        Args:
            image_tokens (`torch.Tensor` of shape `(batch_size, 1 + num_patches, projection_dim)`): view A of the images.
            image_embeds (`torch.Tensor` of shape `(batch_size, projection_dim)`): CLIP's embedding of view B.
            caption_embeds (`torch.Tensor` of shape `(batch_size, projection_dim)`): CLIP's embedding of the captions.

        Returns:
            The total `loss` and its terms, before their weights.
        """
        config = self.config
        mapped, view_b = self.retrieve(image_tokens, image_embeds)
        view_a, captions = unit(image_tokens[:, 0]), unit(caption_embeds)
        with in_float32(mapped):
            loss_b = symmetric_info_nce(mapped, view_b, config.tau)
            loss_a = symmetric_info_nce(mapped, view_a, config.tau)
            soft = soft_text_alignment(captions, view_b, mapped, config.tau)
        loss = loss_b + config.view_a_weight * loss_a + config.soft_weight * soft
        return {"loss": loss, "view_b": loss_b, "view_a": loss_a, "soft": soft}


class ComposingTask(_Task):
    """Stage 2: trains the adapters of the composing text encoder. Mapper and injection are frozen, in eval mode."""

    def __init__(self, model: M2CModel, mapping_prompt: BatchFeature, config: TrainingConfig):
        super().__init__(model, mapping_prompt, config)
        model.requires_grad_(False)
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.requires_grad_(True)

    def train(self, mode: bool = True):
        super().train(False)
        self.model.composing_encoder.train(mode)
        return self

    def retrieve(
        self,
        pseudo_word: torch.Tensor,
        keys_values: torch.Tensor,
        input_ids: torch.LongTensor,
        attention_mask: torch.Tensor,
        pseudo_word_position: torch.LongTensor,
        target_embeds: torch.Tensor,
        **_,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Queries and what they should find: the composed query, and the target."""
        reference = ReferenceEncoding(pseudo_word=pseudo_word, keys_values=tuple(keys_values.unbind(1)))
        composed = self.model.compose(reference, input_ids, pseudo_word_position, attention_mask).pooler_output
        return unit(composed), unit(target_embeds)

    def forward(
        self,
        pseudo_word: torch.Tensor,
        keys_values: torch.Tensor,
        input_ids: torch.LongTensor,
        attention_mask: torch.Tensor,
        pseudo_word_position: torch.LongTensor,
        reference_embeds: torch.Tensor,
        target_embeds: torch.Tensor,
        caption_embeds: torch.Tensor,
    ) -> dict:
        """
        Args:
            pseudo_word (`torch.Tensor` of shape `(batch_size, text_hidden_size)`): of the reference images.
            keys_values (`torch.Tensor` of shape `(batch_size, num_injections, ...)`): likewise, see [`ReferenceEncoding`].
            input_ids, attention_mask (`torch.Tensor` of shape `(batch_size, sequence_length)`): composing prompts.
            pseudo_word_position (`torch.LongTensor` of shape `(batch_size,)`).
            reference_embeds, target_embeds, caption_embeds (`torch.Tensor` of shape `(batch_size, projection_dim)`): CLIP's
                embeddings of reference images, target images and captions of the reference images.

        Returns:
            The total `loss` and its terms, before their weights.
        """
        config = self.config
        mapped = self.map(ReferenceEncoding(pseudo_word=pseudo_word, keys_values=tuple(keys_values.unbind(1))))
        composed, targets = self.retrieve(
            pseudo_word, keys_values, input_ids, attention_mask, pseudo_word_position, target_embeds
        )
        references, captions = unit(reference_embeds), unit(caption_embeds)
        with in_float32(mapped):
            comp = composing_loss(
                composed,
                targets,
                config.tau,
                hard_negatives=config.hard_negatives,
                scale_hard_negatives=config.scale_hard_negatives,
                references=references if config.reference_negatives else None,
            )
            mapping = symmetric_info_nce(references, mapped, config.tau)
            teacher = references if config.soft_teacher == "reference" else targets
            soft = soft_text_alignment(captions, teacher, mapped, config.tau)
        loss = comp + config.mapping_weight * mapping + config.soft_weight * soft
        return {"loss": loss, "composing": comp, "mapping": mapping, "soft": soft}
