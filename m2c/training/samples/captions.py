"""Samples for training from texts alone: captions, each as it is and with the pseudo-word in place of its keywords."""

import torch
from datasets import Dataset
from torch.nn.utils.rnn import pad_sequence

from processing_m2c import M2CProcessor
from processing_m2c.prompts import clean_text, context_length

from .keywords import find_keywords


CAPTION_COLUMNS = ("caption",)


class CaptionSamples(torch.utils.data.Dataset):
    """Captions and masked captions.

    A masked caption is made of the caption's own tokens, cut to the context length, with those of each keyword replaced by one
    pseudo-word. Of a caption without keywords nothing is left in place: the mapping prompt serves as the masked caption.
    """

    def __init__(self, rows: Dataset, processor: M2CProcessor):
        self.rows, self.processor, self.tokenizer = rows, processor, processor.tokenizer
        self.augmentation = {}
        self.room = context_length(self.tokenizer) - 2
        prompt = processor.mapping_prompt(1)
        self.mapping_prompt = prompt.input_ids[0], prompt.pseudo_word_position
        self.pseudo_word_id = prompt.input_ids[0][prompt.pseudo_word_position[0]]

    @property
    def encoded_rows(self) -> Dataset:
        """The columns that the frozen towers see."""
        return self.rows

    def set_epoch(self, epoch: int) -> None:
        """Nothing here depends on the epoch."""

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict:
        return self.prepare(self.rows[index], index)

    def prepare(self, row: dict, index: int | str) -> dict:
        return {"caption": row["caption"] or ""}

    def collate(self, samples: list[dict]) -> dict[str, torch.Tensor]:
        texts = [sample["caption"] for sample in samples]
        captions = self.processor(text=texts, return_tensors="pt")
        return {"caption_ids": captions.input_ids, "caption_mask": captions.attention_mask, **self._prompts(texts)}

    def prompts(self, indices: list[int]) -> dict[str, torch.Tensor]:
        """Masked captions of rows, as long as the longest of them: `input_ids` and `attention_mask` of shape
        `(batch_size, sequence_length)`, and `pseudo_word_position` of shape `(batch_size, num_positions)`, padded with -1."""
        return self._prompts([text or "" for text in self.rows[indices]["caption"]])

    def _prompts(self, captions: list[str]) -> dict[str, torch.Tensor]:
        captions = [clean_text(caption) for caption in captions]
        # The tokens that the processor makes of a caption, and where in it they stand, which tells those of keywords.
        encoded = self.tokenizer(
            captions, add_special_tokens=False, split_special_tokens=True, return_offsets_mapping=True, verbose=False
        )
        masked = map(self._mask, captions, encoded.input_ids, encoded.offset_mapping)
        ids, positions = ([torch.tensor(part) for part in parts] for parts in zip(*masked))
        return {
            "input_ids": pad_sequence(ids, batch_first=True, padding_value=self.tokenizer.eos_token_id),
            "attention_mask": pad_sequence([torch.ones_like(row) for row in ids], batch_first=True),
            "pseudo_word_position": pad_sequence(positions, batch_first=True, padding_value=-1),
        }

    def _mask(self, caption: str, tokens: list[int], spans: list[tuple[int, int]]) -> tuple[list[int], list[int]]:
        """Token ids of a masked caption, from start to end of text, and the positions of the pseudo-word among them."""
        keywords = find_keywords(caption)
        ids, positions, previous = [self.tokenizer.bos_token_id], [], None
        for token, (start, end) in list(zip(tokens, spans))[: self.room]:
            keyword = next((span for span in keywords if start < span[1] and span[0] < end), None)
            if keyword is None:
                ids.append(token)
            elif keyword != previous:
                positions.append(len(ids))
                ids.append(self.pseudo_word_id)
            previous = keyword
        return ([*ids, self.tokenizer.eos_token_id], positions) if positions else self.mapping_prompt
