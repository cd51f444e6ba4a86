"""What the frozen parts of the model make of a batch; and what they made of it before, stored."""

import torch

from modeling_m2c import M2CModel

from .feature_shards import FeatureShards
from .samples import PairSamples, TripletSamples


@torch.no_grad()
def encode_pairs(model: M2CModel, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """A batch of [`PairSamples`] as arguments of [`MappingTask`]: tokens of view A, embeddings of view B and captions."""
    return {
        "image_tokens": model.average_patches(model.get_image_tokens(batch["view_a"])),
        "image_embeds": model.get_image_features(batch["view_b"]).pooler_output,
        "caption_embeds": _captions(model, batch),
    }


@torch.no_grad()
def encode_triplets(model: M2CModel, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """A batch of [`TripletSamples`] as arguments of [`ComposingTask`]: the image side is frozen down to the injection."""
    tokens = model.get_image_tokens(batch["reference"])
    reference = model.encode_reference(tokens)
    no_injection = tokens.new_zeros(len(tokens), 0)
    return {
        "pseudo_word": reference.pseudo_word,
        "keys_values": torch.stack(reference.keys_values, dim=1) if reference.keys_values else no_injection,
        "reference_embeds": tokens[:, 0],
        "target_embeds": model.get_image_features(batch["target"]).pooler_output,
        "caption_embeds": _captions(model, batch),
        **{name: batch[name] for name in ("input_ids", "attention_mask", "pseudo_word_position")},
    }


def _captions(model: M2CModel, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    return model.get_text_features(batch["caption_ids"], batch["caption_mask"]).pooler_output


class CachedFeatures(torch.utils.data.Dataset):
    """Stored features of samples, with their prompts. Nothing is left to encode; views take turns by epoch.

    Args:
        shards: the features, opened.
        samples: what they were encoded from.
    """

    def __init__(self, shards: FeatureShards, samples: PairSamples | TripletSamples):
        self.shards, self.samples = shards, samples
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.samples)

    def __getitems__(self, indices: list[int]) -> dict[str, torch.Tensor]:
        """A whole batch at once; PyTorch's data loader prefers this to item by item."""
        return {**self.shards.read(self.epoch % self.shards.num_views, indices), **self.samples.prompts(indices)}

    @staticmethod
    def collate(batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return batch
