"""Tiny models that chat, with random weights, in the layout of the real ones."""

from pathlib import Path

import pytest
import torch
from tokenizers.pre_tokenizers import ByteLevel
from transformers import (
    CLIPImageProcessorPil,
    CLIPVisionConfig,
    GenerationConfig,
    LlamaConfig,
    LlamaForCausalLM,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen2Tokenizer,
)


TURNS = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
# Templates of models that see take the parts of a content, and fail on a text.
SEEING_TURNS = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<image>{% else %}{{ part['text'] }}{% endif %}{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SPECIAL = {"pad_token": "<|endoftext|>", "eos_token": "<|im_end|>", "unk_token": None}
SIZES = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}
CONTEXT = 400
# Random weights would seldom end a text, if only one token did.
ENDS = [ord(letter) - 33 for letter in "aeinorst"]


def build_tokenizer() -> Qwen2Tokenizer:
    """A token for each byte: the printable ones of ASCII come first, in their order."""
    letters = sorted(ByteLevel.alphabet())
    tokenizer = Qwen2Tokenizer(vocab={letter: number for number, letter in enumerate(letters)}, merges=[], **SPECIAL)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<image>"]})
    tokenizer.chat_template = TURNS
    return tokenizer


def save(path: Path, model: PreTrainedModel, processor) -> str:
    """With the generation settings that chat models come with, and weights large enough for the words to matter."""
    with torch.no_grad():
        for name, tensor in model.named_parameters():
            if name.endswith("weight") and tensor.ndim > 1:
                tensor.normal_(std=0.3)
    model.generation_config = GenerationConfig(
        do_sample=True, temperature=0.6, top_k=20, top_p=0.8, repetition_penalty=1.4, eos_token_id=ENDS
    )
    model.eval().save_pretrained(path)
    processor.save_pretrained(path)
    return str(path)


@pytest.fixture(scope="session", params=["llama", "qwen2"])
def chat_path(request, tmp_path_factory) -> str:
    torch.manual_seed(1)
    tokenizer = build_tokenizer()
    config, kind = {"llama": (LlamaConfig, LlamaForCausalLM), "qwen2": (Qwen2Config, Qwen2ForCausalLM)}[request.param]
    model = kind(config(vocab_size=len(tokenizer), max_position_embeddings=CONTEXT, tie_word_embeddings=False, **SIZES))
    return save(tmp_path_factory.mktemp("models") / "tiny-chat", model, tokenizer)


@pytest.fixture(scope="session")
def seeing_path(tmp_path_factory) -> str:
    """As llava-hf/llava-1.5-7b-hf."""
    torch.manual_seed(2)
    tokenizer = build_tokenizer()
    text = LlamaConfig(vocab_size=len(tokenizer), max_position_embeddings=CONTEXT, tie_word_embeddings=False, **SIZES)
    vision = CLIPVisionConfig(
        hidden_size=32, intermediate_size=48, num_hidden_layers=3, num_attention_heads=4, image_size=32, patch_size=8
    )
    image = tokenizer.convert_tokens_to_ids("<image>")
    model = LlavaForConditionalGeneration(LlavaConfig(vision_config=vision, text_config=text, image_token_id=image))
    size = {"height": 32, "width": 32}
    processor = LlavaProcessor(
        CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size=size),
        tokenizer,
        patch_size=8,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=SEEING_TURNS,
    )
    return save(tmp_path_factory.mktemp("models") / "tiny-seeing-chat", model, processor)
