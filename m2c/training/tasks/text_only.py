"""Stage 1 without images: the self-masking projection of LinCIR (arXiv 2312.01998)."""

import torch
from torch.nn import functional as F

from m2c.checkpoints import read_config
from m2c.training.config import TrainingConfig
from modeling_m2c import ReferenceEncoding

from .stages import MappingTask, unit


def lincir_mapper(config: TrainingConfig) -> dict:
    """LinCIR's token mapper as fields of [`M2CConfig`]: GELU, dropout 0.5, four times as wide as an image embedding."""
    return {
        "mapper_hidden_size": config.mapper_hidden_size or 4 * read_config(config.model).projection_dim,
        "mapper_hidden_act": "gelu",
        "mapper_dropout": 0.5,
    }


class TextOnlyTask(MappingTask):
    """Stage 1 from captions alone: trains the token mapper to write a caption as a word.

    The mapper gets a caption's embedding plus noise, as images lie at some distance from their captions. Its pseudo-word takes
    the place of the caption's keywords, and the embedding of this masked caption is pulled to that of the caption itself.
    """

    def retrieve(self, caption_embeds: torch.Tensor, **_) -> tuple[torch.Tensor, torch.Tensor]:
        """Queries and what they should find: the mapping prompt of a caption without noise, and the caption."""
        return self.map(self._reference(caption_embeds)), unit(caption_embeds)

    def forward(
        self,
        caption_embeds: torch.Tensor,
        input_ids: torch.LongTensor,
        attention_mask: torch.Tensor,
        pseudo_word_position: torch.LongTensor,
    ) -> dict[str, torch.Tensor]:
        """
        Args:
            caption_embeds (`torch.Tensor` of shape `(batch_size, projection_dim)`): CLIP's embeddings of the captions.
            input_ids, attention_mask (`torch.Tensor` of shape `(batch_size, sequence_length)`): masked captions.
            pseudo_word_position (`torch.LongTensor` of shape `(batch_size, num_positions)`): where in them the pseudo-word
                stands, padded with -1.

        Returns:
            `masked` and, unless `mapping_prompt_weight` is 0, `mapped`: embeddings of the masked captions and of the mapping
            prompt, un-normalised, shape `(batch_size, projection_dim)`.
        """
        reference = self._reference(self._with_noise(caption_embeds))
        masked = self.model.compose(reference, input_ids, pseudo_word_position, attention_mask)
        features = {"masked": masked.pooler_output.float()}
        if self.config.mapping_prompt_weight:
            features["mapped"] = self.embed_mapping_prompt(reference).float()
        return features

    def _reference(self, embeds: torch.Tensor) -> ReferenceEncoding:
        return ReferenceEncoding(pseudo_word=self.model.token_mapper(embeds), keys_values=())

    def _with_noise(self, embeds: torch.Tensor) -> torch.Tensor:
        """Adds `noise_scale` times a uniform number of 0..1 for each row times a standard normal one for each of its values."""
        if not self.model.token_mapper.training:
            return embeds
        strength = self.place.draw(torch.rand, embeds[:, :1])
        return embeds + self.config.noise_scale * strength * self.place.draw(torch.randn, embeds)

    def loss(self, features: dict[str, torch.Tensor], batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """
        Args:
            features: from `forward`.
            batch: `caption_embeds` of shape `(batch_size, projection_dim)`.

        Returns:
            The total `loss` and its terms, before their weights: the squared error of un-normalised embeddings, mean over rows
            and values.
        """
        terms = {name: F.mse_loss(embeds, batch["caption_embeds"].float()) for name, embeds in features.items()}
        loss = terms["masked"] + self.config.mapping_prompt_weight * terms.get("mapped", 0.0)
        return {"loss": loss, **terms}
