"""What the frozen parts of the model make of a batch; and what they made of it before, stored."""

import numpy as np
import torch
from PIL import Image

from m2c.training.config import TrainingConfig
from m2c.training.samples.images import PairSamples, TripletSamples
from modeling_m2c import M2CModel
from processing_m2c import M2CProcessor

from .shards import FeatureShards


# Rows that pass the frozen towers at a time: more take more memory and no less time. It divides a shard, so batches are
# the same however many processes share the shards.
BATCH_SIZE = 256


class Encoder:
    """What the frozen parts of the model do to a batch of samples in a stage: pixels, and then the towers.

    Args:
        config: of the run.
        processor: that of the samples. What its rescaling and normalisation make of each of the 256 levels of a channel is all
            that they do, so pixels that were bytes become, bit for bit, what it would have made of them.
    """

    def __init__(self, config: TrainingConfig, processor: M2CProcessor):
        self.encode = encode_pairs if config.stage == 1 else encode_triplets
        if config.objective == "text_only":
            self.encode = encode_captions
        ramp = np.repeat(np.arange(256, dtype=np.uint8).reshape(16, 16, 1), 3, axis=2)
        as_it_is = {"do_resize": False, "do_center_crop": False, "return_tensors": "pt"}
        self.levels = processor.image_processor([Image.fromarray(ramp)], **as_it_is).pixel_values.view(3, 256)

    def __call__(self, model: M2CModel, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """A batch as arguments of the stage's task."""
        return self.encode(model, {name: self._pixels(x) if x.dtype == torch.uint8 else x for name, x in batch.items()})

    def _pixels(self, levels: torch.Tensor) -> torch.Tensor:
        """Of shape `(batch_size, 3, height, width)`, as the processor makes them."""
        self.levels = self.levels.to(levels.device)
        shape = levels[:, 0].shape
        channels = [self.levels[i].index_select(0, levels[:, i].flatten().int()).view(shape) for i in range(3)]
        return torch.stack(channels, dim=1)


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


@torch.no_grad()
def encode_captions(model: M2CModel, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """A batch of [`CaptionSamples`] as arguments of [`TextOnlyTask`]: embeddings of the captions, and the masked captions."""
    return {
        "caption_embeds": model.get_text_features(batch["caption_ids"], batch["caption_mask"]).pooler_output,
        **{name: batch[name] for name in ("input_ids", "attention_mask", "pseudo_word_position")},
    }


def _captions(model: M2CModel, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    return model.get_text_features(batch["caption_ids"], batch["caption_mask"]).pooler_output


def widen(batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Stored features in float32. To be done on the device: so half the bytes have to be moved there."""
    return {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in batch.items()}


class CachedFeatures(torch.utils.data.Dataset):
    """Stored features of samples, with their prompts. Nothing is left to encode; views take turns by epoch.

    Args:
        shards: the features, opened.
        samples: what they were encoded from.
    """

    def __init__(self, shards: FeatureShards, samples: PairSamples | TripletSamples):
        self.shards, self.samples, self.rows = shards, samples, samples.rows
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
