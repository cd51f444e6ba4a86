"""Captioners of transformers that take a picture and write, such as BLIP and BLIP-2."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace

import torch
from PIL.Image import Image
from transformers import PreTrainedModel, ProcessorMixin

from m2c.retrieval.pretrained import Pretrained
from m2c.retrieval.sampling import GumbelSampler

from .captioner import CaptionSettings, Reply, one_line


TOP_P, MAX_NEW_TOKENS = 0.9, 30
# Their vision side reads the prompt too.
NEED_PROMPT = ("instructblip",)


class ImageToText:
    """A [`Captioner`] around a model that `AutoModelForImageTextToText` loads and that does not chat.

    All captions of a picture are drawn together. Models that encode it before they write (BLIP, BLIP-2, InstructBLIP, all that
    have an encoder and a decoder) do so once for them.

    Args:
        pretrained: the model.
        processor: its processor.
        settings: how captions are drawn.
        batch_size: pictures at a time; so many times the captions of each are written at once.

    Raises:
        ValueError: if the model needs a prompt and the settings have none.
    """

    def __init__(self, pretrained: Pretrained, processor: ProcessorMixin, settings: CaptionSettings, batch_size: int):
        if settings.prompt is None and pretrained.config.model_type in NEED_PROMPT:
            raise ValueError(
                f"{pretrained.name!r} needs --prompt (of m2c evaluate, --caption_prompt), such as 'A short image description:'"
            )
        self.pretrained, self.processor, self.batch_size = pretrained, processor, batch_size
        self.settings = replace(
            settings,
            top_p=settings.top_p or TOP_P,
            max_new_tokens=settings.max_new_tokens or pretrained.generation_config.max_new_tokens or MAX_NEW_TOKENS,
        )
        self.identity = {**pretrained.identity, **asdict(self.settings)}

    @property
    def model(self) -> PreTrainedModel:
        """Its weights are read when it is first asked for."""
        return self.pretrained.model

    @torch.inference_mode()
    def captions(
        self, pictures: Sequence[Image], digests: Sequence[str], numbers: Sequence[int], attempt: int = 0
    ) -> Iterator[list[Reply]]:
        settings = self.settings
        prompt = {} if settings.prompt is None else {"text": [settings.prompt] * len(pictures)}
        inputs = self.processor(images=list(pictures), **prompt, return_tensors="pt").to(self.model.device, self.model.dtype)
        places = [(row, number) for row in range(len(pictures)) for number in numbers]
        keys = [f"{settings.seed} {digests[row]} {number} {attempt}" for row, number in places]
        tokens = self.model.generate(
            **inputs,
            max_new_tokens=settings.max_new_tokens,
            do_sample=True,
            num_beams=1,
            num_return_sequences=len(numbers),
            logits_processor=[GumbelSampler(keys, settings.temperature, settings.top_p)],
        )
        # A decoder repeats the prompt before it goes on.
        start = self._decode(inputs["input_ids"])[0] if prompt else ""
        texts = [text.strip().removeprefix(start.strip()) for text in self._decode(tokens)]
        yield [(row, number, one_line(text)) for (row, number), text in zip(places, texts)]

    def _decode(self, tokens: torch.Tensor) -> list[str]:
        return self.processor.batch_decode(tokens, skip_special_tokens=True)
