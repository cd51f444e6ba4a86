"""What the frozen parts of the model make of a batch, and a cache of it: frozen work needs to be done once."""

from collections.abc import Callable

import torch
from torch.utils.data import DataLoader
from tqdm.auto import tqdm

from modeling_m2c import M2CModel

from .samples import PairSamples, TripletSamples


@torch.no_grad()
def encode_pairs(model: M2CModel, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """A batch of [`PairSamples`] as arguments of [`MappingTask`]: tokens of view A, embeddings of view B and captions."""
    return {
        "image_tokens": model.get_image_tokens(batch["view_a"]),
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
    """Features of every sample in memory, in half precision, in one or more views that take turns by epoch."""

    def __init__(self, views: list[dict[str, torch.Tensor]]):
        self.views = views
        self.epoch = 0

    @classmethod
    def encode(
        cls,
        samples: PairSamples | TripletSamples,
        encode: Callable[[M2CModel, dict], dict],
        model: M2CModel,
        views: int,
        mixed_precision: str = "no",
        num_workers: int = 0,
        batch_size: int = 256,
    ) -> "CachedFeatures":
        """Runs `encode` over all samples, `views` times. The model must be in eval mode."""
        low_precision = torch.float16 if mixed_precision == "fp16" else torch.bfloat16
        autocast = torch.autocast(model.device.type, low_precision, enabled=mixed_precision != "no")
        cached = []
        for view in range(views):
            samples.set_epoch(view)
            loader = DataLoader(samples, batch_size, collate_fn=samples.collate, num_workers=num_workers)
            description = "encoding" if views == 1 else f"encoding, view {view + 1} of {views}"
            batches = []
            for batch in tqdm(loader, desc=description):
                with autocast:
                    features = encode(model, {name: tensor.to(model.device) for name, tensor in batch.items()})
                batches.append({name: _half(tensor).cpu() for name, tensor in features.items()})
            cached.append({name: _concatenate([batch[name] for batch in batches]) for name in batches[0]})
        return cls(cached)

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return len(next(iter(self.views[0].values())))

    def __getitems__(self, indices: list[int]) -> dict[str, torch.Tensor]:
        """A whole batch at once; PyTorch's data loader prefers this to item by item."""
        view, index = self.views[self.epoch % len(self.views)], torch.tensor(indices)
        batch = {name: tensor[index] for name, tensor in view.items()}
        batch = {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in batch.items()}
        if "attention_mask" in batch:
            # Prompts were padded to the longest of all: half of a batch's work can be padding.
            longest = int(batch["attention_mask"].sum(dim=-1).max())
            batch["input_ids"], batch["attention_mask"] = batch["input_ids"][:, :longest], batch["attention_mask"][:, :longest]
        return batch

    @staticmethod
    def collate(batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return batch


def _half(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.half() if tensor.is_floating_point() else tensor


def _concatenate(tensors: list[torch.Tensor]) -> torch.Tensor:
    """Along the first dimension; prompts of different lengths are padded with zeros, which their mask leaves out."""
    if tensors[0].ndim == 2:
        width = max(tensor.shape[1] for tensor in tensors)
        tensors = [torch.nn.functional.pad(tensor, (0, width - tensor.shape[1])) for tensor in tensors]
    return torch.cat(tensors)
