"""Training samples: rows of a data set, augmented and prepared for the model."""

import random

import torch
from datasets import Dataset
from PIL import Image

from m2c.data.loading import read_image
from processing_m2c import M2CProcessor


# The share of its area that a view keeps of an image: published.
VIEW_A_SCALE, VIEW_B_SCALE = (0.8, 1.0), (0.9, 1.0)

PAIR_COLUMNS = ("image", "caption")
TRIPLET_COLUMNS = ("reference", "target", "modification", "reference_caption")
IMAGE_COLUMNS = {"image", "reference", "target"}


def random_resized_crop(image: Image.Image, scale: tuple[float, float], size: int, rng: random.Random) -> Image.Image:
    """A random part of the image as a square of `size` pixels.

    `scale` bounds the part's share of the area; its shape is 3:4 to 4:3, as far as the image's own shape allows.
    """
    width, height = image.size
    area = width * height * rng.uniform(*scale)
    ratio = rng.uniform(0.75, 4 / 3)
    crop_width = min(width, max(1, round((area * ratio) ** 0.5)))
    crop_height = min(height, max(1, round(area / crop_width)))
    left, top = rng.randint(0, width - crop_width), rng.randint(0, height - crop_height)
    box = (left, top, left + crop_width, top + crop_height)
    return image.resize((size, size), Image.Resampling.BICUBIC, box=box)


class PairSamples(torch.utils.data.Dataset):
    """Stage 1: two light augmentations of an image, and its caption.

    View A (crop of 0.8-1.0 of the area, mirrored with probability `horizontal_flip`) feeds mapper and injection; view B
    (crop of 0.9-1.0) is what the composed feature is to find. Augmentation depends on `seed`, epoch and row alone.
    """

    def __init__(self, rows: Dataset, processor: M2CProcessor, horizontal_flip: float, seed: int):
        self.rows, self.processor, self.horizontal_flip, self.seed = rows, processor, horizontal_flip, seed
        self.epoch = 0

    @property
    def augmentation(self) -> dict:
        """What decides the views, besides image, epoch and row."""
        scales = {"view_a": VIEW_A_SCALE, "view_b": VIEW_B_SCALE}
        return {"seed": self.seed, "horizontal_flip": self.horizontal_flip, **scales}

    @property
    def encoded_rows(self) -> Dataset:
        """The columns that the frozen towers see."""
        return self.rows

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict:
        return self.prepare(self.rows[index], index)

    def prepare(self, row: dict, index: int | str) -> dict:
        """A row as a sample; `index` names its place among the rows, which augmentation depends on."""
        image = read_image(row, "image", index)
        rng = random.Random(f"{self.seed}:{self.epoch}:{index}")
        size = self.processor.image_processor.crop_size["height"]
        view_a = random_resized_crop(image, VIEW_A_SCALE, size, rng)
        if rng.random() < self.horizontal_flip:
            view_a = view_a.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        view_b = random_resized_crop(image, VIEW_B_SCALE, size, rng)
        return {"view_a": view_a, "view_b": view_b, "caption": row["caption"] or ""}

    def collate(self, samples: list[dict]) -> dict[str, torch.Tensor]:
        captions = self.processor(text=[sample["caption"] for sample in samples], return_tensors="pt")
        return {
            "view_a": _pixels(self.processor, samples, "view_a"),
            "view_b": _pixels(self.processor, samples, "view_b"),
            "caption_ids": captions.input_ids,
            "caption_mask": captions.attention_mask,
        }

    def prompts(self, indices: list[int]) -> dict[str, torch.Tensor]:
        """None: every row has the mapping prompt."""
        return {}


class TripletSamples(torch.utils.data.Dataset):
    """Stage 2: reference image, target image, the composing prompt, and a caption of the reference image."""

    def __init__(self, rows: Dataset, processor: M2CProcessor):
        self.rows, self.processor = rows, processor
        self.modifications = rows.select_columns("modification")
        self.augmentation = {}

    def set_epoch(self, epoch: int) -> None:
        """Nothing here depends on the epoch."""

    @property
    def encoded_rows(self) -> Dataset:
        """The columns that the frozen towers see; a text tower that is trained sees the modification text."""
        return self.rows.remove_columns("modification")

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict:
        return self.prepare(self.rows[index], index)

    def prepare(self, row: dict, index: int | str) -> dict:
        """A row as a sample; `index` names its place among the rows."""
        return {
            "reference": read_image(row, "reference", index),
            "target": read_image(row, "target", index),
            "modification": row["modification"] or "",
            "caption": row.get("reference_caption") or "",
        }

    def collate(self, samples: list[dict]) -> dict[str, torch.Tensor]:
        captions = self.processor(text=[sample["caption"] for sample in samples], return_tensors="pt")
        return {
            "reference": _pixels(self.processor, samples, "reference"),
            "target": _pixels(self.processor, samples, "target"),
            "caption_ids": captions.input_ids,
            "caption_mask": captions.attention_mask,
            **self._prompts([sample["modification"] for sample in samples]),
        }

    def prompts(self, indices: list[int]) -> dict[str, torch.Tensor]:
        """Composing prompts of rows, as long as the longest of them: `input_ids`, `attention_mask`, `pseudo_word_position`."""
        return self._prompts([text or "" for text in self.modifications[indices]["modification"]])

    def _prompts(self, modifications: list[str]) -> dict[str, torch.Tensor]:
        return dict(self.processor.composed_prompt(modifications, return_tensors="pt"))


def _pixels(processor: M2CProcessor, samples: list[dict], key: str) -> torch.Tensor:
    """Bytes: a quarter of what the towers take, for workers to send and for a device to get. [`Encoder`] does the rest."""
    images = [sample[key] for sample in samples]
    return processor(images=images, do_rescale=False, do_normalize=False, return_tensors="pt").pixel_values
