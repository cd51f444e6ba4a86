"""Chat models of transformers, with the weights here."""

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from itertools import groupby

import torch
from jinja2 import TemplateError
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase, ProcessorMixin

from m2c.retrieval.pretrained import Pretrained
from m2c.retrieval.sampling import GumbelSampler

from .chat import Failure, Request, content_parts, length_of, pictures_of


# Among so many batches requests are sorted by length.
_WINDOW = 16


class LocalChat:
    """A [`~m2c.retrieval.chat.ChatModel`] on this machine: one batch at a time, padded on the left.

    A reply depends on its request alone, as far as rounding does not: decoding is greedy, or draws with the noise of the
    request's seed. Of the model's own generation settings only the tokens that end a text are used.

    Args:
        pretrained: the model.
        processor: its tokenizer, or, of a model that takes pictures, its processor. Has a chat template.
        batch_size: conversations at a time.

    Raises:
        ValueError: if the model names no token that ends a text.
    """

    def __init__(self, pretrained: Pretrained, processor: PreTrainedTokenizerBase | ProcessorMixin, batch_size: int = 16):
        self.pretrained, self.processor, self.batch_size = pretrained, processor, batch_size
        self.identity = pretrained.identity
        self.sees = isinstance(processor, ProcessorMixin)
        self.tokenizer = processor.tokenizer if self.sees else processor
        self.tokenizer.padding_side = "left"
        self.ends = _ends_of_text(pretrained.generation_config, self.tokenizer)
        if not self.ends:
            raise ValueError(
                f"{self.identity['model']!r} names no token that ends a text; add eos_token_id to generation_config.json"
            )
        if self.tokenizer.pad_token is None:
            self.tokenizer.pad_token = self.tokenizer.convert_ids_to_tokens(self.ends[0])
        self.context = getattr(pretrained.config.get_text_config(), "max_position_embeddings", None)

    @cached_property
    def model(self) -> PreTrainedModel:
        """Its weights are read when it is first asked for."""
        model = self.pretrained.model
        model.generation_config = GenerationConfig(eos_token_id=self.ends, pad_token_id=self.tokenizer.pad_token_id)
        return model

    def replies(self, requests: Sequence[Request]) -> Iterator[list[tuple[int, str | Failure]]]:
        """See [`~m2c.retrieval.chat.ChatModel`]; a batch at a time.

        Raises:
            ValueError: if the model's chat template refuses a conversation, or there are pictures and it takes none.
        """
        size = _WINDOW * self.batch_size
        for start in range(0, len(requests), size):
            window = {position: requests[position] for position in range(start, min(start + size, len(requests)))}
            for batch in self._batches(window):
                yield list(zip(batch, self._replies([window[position] for position in batch])))

    def _batches(self, requests: dict[int, Request]) -> Iterator[list[int]]:
        """Positions of requests with equally many pictures, those with the longest texts first."""

        def pictures(position: int) -> int:
            return len(pictures_of(requests[position]))

        order = sorted(requests, key=lambda position: (pictures(position), length_of(requests[position])), reverse=True)
        for _, group in groupby(order, key=pictures):
            alike = list(group)
            for start in range(0, len(alike), self.batch_size):
                yield alike[start : start + self.batch_size]

    def _replies(self, requests: list[Request]) -> list[str | Failure]:
        inputs = {name: self._placed(tensor) for name, tensor in self._inputs(requests).items()}
        lengths = inputs["attention_mask"].sum(dim=1).tolist()
        fits = [self.context is None or n + r.max_new_tokens <= self.context for n, r in zip(lengths, requests)]
        if all(fits):
            return self._generate(requests, inputs)
        shorter = [request for request, fit in zip(requests, fits) if fit]
        replies = iter(self._replies(shorter) if shorter else [])
        return [next(replies) if fit else self._too_long(n, r) for n, r, fit in zip(lengths, requests, fits)]

    def _too_long(self, length: int, request: Request) -> Failure:
        return Failure(
            f"a conversation of {length} tokens with {request.max_new_tokens} new ones is longer than the model's context of "
            f"{self.context}"
        )

    def _placed(self, tensor: torch.Tensor) -> torch.Tensor:
        return tensor.to(self.model.device, self.model.dtype if tensor.is_floating_point() else tensor.dtype)

    def _inputs(self, requests: list[Request]) -> Mapping[str, torch.Tensor]:
        pictures = bool(pictures_of(requests[0]))
        if pictures and not self.sees:
            raise ValueError(f"{self.identity['model']!r} takes no pictures; choose a vision-language model")
        template = self.processor.chat_template
        # Models that may think aloud first would seldom come to the point within the tokens of a reply.
        thinking = {"enable_thinking": False} if "enable_thinking" in template else {}
        arguments = {"add_generation_prompt": True, "tokenize": True, "return_dict": True, "return_tensors": "pt", **thinking}
        conversations = [self._conversation(request) for request in requests]
        try:
            if pictures:
                return self.processor.apply_chat_template(conversations, processor_kwargs={"padding": True}, **arguments)
            # No text from outside may end a turn and begin another.
            inputs = self.tokenizer.apply_chat_template(
                conversations, chat_template=template, padding=True, sanitize_control_tokens=True, **arguments
            )
            return {name: inputs[name] for name in ("input_ids", "attention_mask")}
        except TemplateError as error:
            raise ValueError(f"the chat template of {self.identity['model']!r} refuses the conversation: {error}") from error

    def _conversation(self, request: Request) -> list[dict]:
        """As the template expects it: of a model that takes pictures the contents are lists of parts, of others texts."""
        turns = ((message["role"], content_parts(message)) for message in request.messages)
        if self.sees:
            return [{"role": role, "content": parts} for role, parts in turns]
        return [{"role": role, "content": "\n".join(part["text"] for part in parts)} for role, parts in turns]

    @torch.inference_mode()
    def _generate(self, requests: list[Request], inputs: dict[str, torch.Tensor]) -> list[str | Failure]:
        temperatures = [request.temperature for request in requests]
        sampler = [GumbelSampler([request.seed for request in requests], temperatures)] if any(temperatures) else []
        generated = self.model.generate(
            **inputs,
            max_new_tokens=max(request.max_new_tokens for request in requests),
            do_sample=False,
            logits_processor=sampler,
        )
        start = inputs["input_ids"].shape[1]
        return [self._reply(tokens, r.max_new_tokens) for tokens, r in zip(generated[:, start:].tolist(), requests)]

    def _reply(self, tokens: list[int], limit: int) -> str | Failure:
        tokens = tokens[:limit]
        end = next((place for place, token in enumerate(tokens) if token in self.ends), None)
        if end is None:
            return Failure(f"cut off after {limit} tokens")
        return self.tokenizer.decode(tokens[:end], skip_special_tokens=True).strip() or Failure("an empty reply")


def _ends_of_text(config: GenerationConfig, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Token ids. Many models name one in their generation settings, and another with their tokenizer, which ends a turn."""
    named = config.eos_token_id
    ends = {tokenizer.eos_token_id, *(named if isinstance(named, list) else [named])}
    return sorted(ends - {None})
