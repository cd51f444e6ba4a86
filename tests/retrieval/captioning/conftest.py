"""Tiny captioners with random weights, in the layout of the real ones."""

from pathlib import Path

import pytest
import torch
from transformers import (
    BertTokenizer,
    Blip2Config,
    Blip2ForConditionalGeneration,
    Blip2Processor,
    BlipConfig,
    BlipForConditionalGeneration,
    BlipImageProcessorPil,
    BlipProcessor,
    GPT2Tokenizer,
    InstructBlipConfig,
    InstructBlipForConditionalGeneration,
    InstructBlipProcessor,
)

from m2c.retrieval.text_store import TextStore

from ..chat.conftest import chat_path, seeing_path  # noqa: F401


WORDS = "a an the red green blue dog cat dress photo of with in on long short black white shirt tree".split()
SIZE = {"height": 16, "width": 16}
VISION = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 16,
    "patch_size": 8,
}
TEXT = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}


def _save(path: Path, model, processor) -> str:
    """With weights large enough for pictures to matter."""
    with torch.no_grad():
        for name, tensor in model.named_parameters():
            if name.endswith("weight") and tensor.ndim > 1:
                tensor.normal_(std=0.4)
    model.eval().save_pretrained(path)
    processor.save_pretrained(path)
    return str(path)


@pytest.fixture(scope="session")
def blip_path(tmp_path_factory) -> str:
    """As Salesforce/blip-image-captioning-base."""
    torch.manual_seed(0)
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]
    tokenizer = BertTokenizer(vocab={word: number for number, word in enumerate(vocabulary)})
    # The token that a caption begins with, [DEC], is one that only the model knows.
    start = len(vocabulary)
    ids = {"vocab_size": start + 2, "bos_token_id": start, "pad_token_id": 0, "eos_token_id": 2, "sep_token_id": 3}
    config = BlipConfig(text_config={**TEXT, "encoder_hidden_size": 16, **ids}, vision_config=VISION, projection_dim=16)
    processor = BlipProcessor(BlipImageProcessorPil(size=SIZE), tokenizer)
    model = BlipForConditionalGeneration(config)
    with torch.no_grad():
        model.text_decoder.cls.predictions.bias[3] = -1e4  # a caption that ends where it begins would be a failure
    return _save(tmp_path_factory.mktemp("models") / "blip", model, processor)


def _letters() -> GPT2Tokenizer:
    vocabulary = ["<s>", "<pad>", "</s>", "<unk>", "\u0120", *"abcdefghijklmnopqrstuvwxyz", "\u010a"]
    return GPT2Tokenizer(
        vocab={word: number for number, word in enumerate(vocabulary)},
        merges=[],
        bos_token="</s>",
        eos_token="</s>",
        pad_token="<pad>",
        unk_token="<unk>",
        add_bos_token=True,
    )


def _opt(tokenizer: GPT2Tokenizer) -> dict:
    return {
        "model_type": "opt",
        "vocab_size": len(tokenizer),
        "ffn_dim": 24,
        "word_embed_proj_dim": 16,
        "max_position_embeddings": 64,
        "bos_token_id": 2,
        "eos_token_id": 2,
        "pad_token_id": 1,
        **TEXT,
    }


@pytest.fixture(scope="session")
def blip2_path(tmp_path_factory) -> str:
    """As Salesforce/blip2-opt-2.7b."""
    torch.manual_seed(0)
    tokenizer = _letters()
    processor = Blip2Processor(BlipImageProcessorPil(size=SIZE), tokenizer, num_query_tokens=3)
    config = Blip2Config(
        text_config=_opt(tokenizer),
        vision_config=VISION,
        qformer_config={**TEXT, "encoder_hidden_size": 16, "vocab_size": 8},
        num_query_tokens=3,
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
    )
    return _save(tmp_path_factory.mktemp("models") / "blip2", Blip2ForConditionalGeneration(config), processor)


@pytest.fixture(scope="session")
def instructblip_path(tmp_path_factory) -> str:
    """As Salesforce/instructblip-vicuna-7b, with OPT."""
    torch.manual_seed(0)
    tokenizer, words = _letters(), BertTokenizer(vocab={word: number for number, word in enumerate(["[PAD]", "[UNK]", *WORDS])})
    processor = InstructBlipProcessor(BlipImageProcessorPil(size=SIZE), tokenizer, words, num_query_tokens=3)
    config = InstructBlipConfig(
        text_config=_opt(tokenizer),
        vision_config=VISION,
        qformer_config={**TEXT, "encoder_hidden_size": 16, "vocab_size": len(words)},
        num_query_tokens=3,
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
    )
    model = InstructBlipForConditionalGeneration(config)
    return _save(tmp_path_factory.mktemp("models") / "instructblip", model, processor)


@pytest.fixture
def store(tmp_path) -> TextStore:
    return TextStore(tmp_path / "texts.sqlite")
