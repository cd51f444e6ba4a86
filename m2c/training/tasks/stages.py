"""What is trained and its loss, one class for each stage.

Accelerate wraps the task, so all that is trained runs in `forward`, which gives the features that carry a gradient. `loss`
takes them, and the frozen features of the batch, and trains nothing itself: the features may come from the whole batch at once
or from parts of it.
"""

import torch
from torch import nn
from torch.nn.functional import normalize
from transformers import BatchFeature

from m2c.training.config import TrainingConfig
from modeling_m2c import M2CModel, ReferenceEncoding

from .global_batch import BatchPlace, see_global_batch
from .objectives import composing_loss, soft_text_alignment, symmetric_info_nce


class _Task(nn.Module):
    def __init__(self, model: M2CModel, mapping_prompt: BatchFeature, config: TrainingConfig):
        super().__init__()
        # Training has no use for CLIP's temperature, and DeepSpeed none for a parameter without dimensions.
        temperature = model.logit_scale.detach()
        del model.logit_scale
        model.register_buffer("logit_scale", temperature)
        self.model = model
        self.config = config
        self.place = BatchPlace(config.seed)
        self.register_buffer("prompt_ids", mapping_prompt.input_ids, persistent=False)
        self.register_buffer("prompt_position", mapping_prompt.pseudo_word_position, persistent=False)
        if config.gradient_checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": False, "context_fn": self.place.recomputation})

    def map(self, reference: ReferenceEncoding) -> torch.Tensor:
        """Unit features of the mapping prompt "a photo of *", shape `(batch_size, projection_dim)`."""
        return unit(self.embed_mapping_prompt(reference))

    def embed_mapping_prompt(self, reference: ReferenceEncoding) -> torch.Tensor:
        """As `map`, un-normalised."""
        batch_size = len(reference.pseudo_word)
        prompt, position = self.prompt_ids.expand(batch_size, -1), self.prompt_position.expand(batch_size)
        return self.model.compose(reference, prompt, position).pooler_output


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
        return self.forward(image_tokens)["mapped"], unit(image_embeds)

    def measure(self, image_tokens: torch.Tensor, **_) -> None:
        """Runs as far as batch norm, for statistics of a batch that is seen in parts."""
        self.model.encode_reference(image_tokens)

    def forward(self, image_tokens: torch.Tensor, **_) -> dict[str, torch.Tensor]:
        """
        Args:
            image_tokens (`torch.Tensor` of shape `(batch_size, 1 + num_patches, projection_dim)`): view A of the images.

        Returns:
            `mapped`, unit features of the mapping prompt, shape `(batch_size, projection_dim)`.
        """
        return {"mapped": self.map(self.model.encode_reference(image_tokens))}

    def loss(self, features: dict[str, torch.Tensor], batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """
        Args:
            features: from `forward`.
            batch: `image_tokens` of view A; `image_embeds` and `caption_embeds`, both of shape `(batch_size, projection_dim)`,
                CLIP's embeddings of view B and of the captions.

        Returns:
            The total `loss` and its terms, before their weights.
        """
        config, mapped = self.config, features["mapped"]
        view_a, view_b = unit(batch["image_tokens"][:, 0]), unit(batch["image_embeds"])
        captions = unit(batch["caption_embeds"])
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
        see_global_batch(model.composing_encoder, self.place)

    def train(self, mode: bool = True):
        super().train(False)
        self.model.composing_encoder.train(mode)
        return self

    def retrieve(self, target_embeds: torch.Tensor, **query) -> tuple[torch.Tensor, torch.Tensor]:
        """Queries and what they should find: the composed query, and the target."""
        return self._compose(**query), unit(target_embeds)

    def forward(self, **batch) -> dict[str, torch.Tensor]:
        """
        Args:
            pseudo_word (`torch.Tensor` of shape `(batch_size, text_hidden_size)`): of the reference images.
            keys_values (`torch.Tensor` of shape `(batch_size, num_injections, ...)`): likewise, see [`ReferenceEncoding`].
            input_ids, attention_mask (`torch.Tensor` of shape `(batch_size, sequence_length)`): composing prompts.
            pseudo_word_position (`torch.LongTensor` of shape `(batch_size,)`).

        Returns:
            `mapped` and `composed`, unit features of mapping and composing prompt, shape `(batch_size, projection_dim)`.
        """
        return {"mapped": self.map(_reference(**batch)), "composed": self._compose(**batch)}

    def _compose(
        self,
        input_ids: torch.LongTensor,
        attention_mask: torch.Tensor,
        pseudo_word_position: torch.LongTensor,
        **reference: torch.Tensor,
    ) -> torch.Tensor:
        composed = self.model.compose(_reference(**reference), input_ids, pseudo_word_position, attention_mask)
        return unit(composed.pooler_output)

    def loss(self, features: dict[str, torch.Tensor], batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """
        Args:
            features: from `forward`.
            batch: `reference_embeds`, `target_embeds`, `caption_embeds` of shape `(batch_size, projection_dim)`: CLIP's
                embeddings of reference images, target images and captions of the reference images.

        Returns:
            The total `loss` and its terms, before their weights.
        """
        config, mapped = self.config, features["mapped"]
        references, targets, captions = (unit(batch[f"{name}_embeds"]) for name in ("reference", "target", "caption"))
        with in_float32(mapped):
            comp = composing_loss(
                features["composed"],
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


def _reference(pseudo_word: torch.Tensor, keys_values: torch.Tensor, **_) -> ReferenceEncoding:
    return ReferenceEncoding(pseudo_word=pseudo_word, keys_values=tuple(keys_values.unbind(1)))
