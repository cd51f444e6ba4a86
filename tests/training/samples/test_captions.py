import pytest
import torch
from datasets import Dataset
from hypothesis import given
from hypothesis import strategies as st
from tokenizers.pre_tokenizers import ByteLevel
from transformers import CLIPImageProcessorPil, CLIPTokenizer

from m2c.training.samples.captions import CaptionSamples
from processing_m2c import M2CProcessor


CONTEXT = 16


def clip_tokenizer() -> CLIPTokenizer:
    """CLIP's own kind: bytes, of which this one joins those of "red" only; so a word is several tokens."""
    letters = sorted(ByteLevel.alphabet())
    tokens = [*letters, *(f"{letter}</w>" for letter in letters), "re", "red</w>", "<|startoftext|>", "<|endoftext|>"]
    vocabulary = {token: index for index, token in enumerate(tokens)}
    return CLIPTokenizer(vocab=vocabulary, merges=[("r", "e"), ("re", "d</w>")], model_max_length=CONTEXT)


PROCESSOR = M2CProcessor(CLIPImageProcessorPil(), clip_tokenizer(), mapping_template="of *")


def samples_of(*captions: str | None) -> CaptionSamples:
    return CaptionSamples(Dataset.from_dict({"caption": list(captions)}), PROCESSOR)


def masked(caption: str) -> str:
    """The masked caption, with # where the pseudo-word stands and without the ends of words."""
    prompt = samples_of(caption).prompts([0])
    ids = prompt["input_ids"][0].tolist()
    assert (ids[0], ids[-1]) == (PROCESSOR.tokenizer.bos_token_id, PROCESSOR.tokenizer.eos_token_id)
    tokens = PROCESSOR.tokenizer.convert_ids_to_tokens(ids)
    for position in prompt["pseudo_word_position"][0].tolist():
        tokens[position] = "#"
    return " ".join(tokens[1:-1]).replace("</w>", "")


@pytest.mark.parametrize(
    ("caption", "expected"),
    [
        ("a red cat is on it", "# i s o n i t"),
        ("red, red on red", "# , # o n #"),
        # The placeholder, the dollar, special tokens: text like any other.
        ("* of $5 red *", "* o f $ 5 # *"),
        ("<|endoftext|>", "< | # | >"),
        # Cut to the context as the caption is, before it is masked: the second "red" is not there any more.
        ("of of of of of of of red red", "o f #"),
        ("of of of of of of red on red", "o f o f o f o f o f o f # o"),
        ("red " * 50, "#"),
        # Without a keyword: the mapping prompt.
        ("of it", "o f #"),
        ("", "o f #"),
        (" ❤ ", "o f #"),
        ("it " * 20 + "red", "o f #"),
    ],
)
def test_masked_captions(caption, expected):
    assert masked(caption) == expected


def test_a_batch():
    """Captions as the processor has them; masked captions and positions padded."""
    captions = ["red on red, red", None, "red"]
    samples = samples_of(*captions)
    batch = samples.collate([samples[index] for index in range(3)])
    plain = PROCESSOR(text=["red on red, red", "", "red"], return_tensors="pt")
    assert torch.equal(batch["caption_ids"], plain.input_ids) and torch.equal(batch["caption_mask"], plain.attention_mask)
    assert batch["pseudo_word_position"].tolist() == [[1, 4, 6], [3, -1, -1], [1, -1, -1]]
    assert batch["attention_mask"].tolist() == [[1] * 8, [1] * 5 + [0] * 3, [1] * 3 + [0] * 5]
    for name, tensor in samples.prompts([2, 0]).items():
        assert torch.equal(tensor, batch[name][[2, 0]]), name


PIECES = st.sampled_from(["the", "red", "of", "is", " ", ",", "*", "$", "❤", "é", "ﬁ", "\n", "\x00", "<|endoftext|>", "#"])


@given(st.text() | st.lists(PIECES, max_size=30).map(" ".join) | st.lists(PIECES, max_size=30).map("".join))
def test_any_caption(caption):
    """Some pseudo-word, one start and one end, and nothing that is not the caption's, or else the mapping prompt."""
    prompt = samples_of(caption.encode("utf-8", "replace").decode()).prompts([0])
    ids, positions = prompt["input_ids"][0].tolist(), prompt["pseudo_word_position"][0].tolist()
    tokenizer = PROCESSOR.tokenizer
    assert len(ids) <= CONTEXT and ids[0] == tokenizer.bos_token_id and ids[-1] == tokenizer.eos_token_id
    assert positions == sorted(set(positions)) and 0 < positions[0] and positions[-1] < len(ids) - 1
    left = [token for place, token in enumerate(ids) if place not in positions]
    assert tokenizer.bos_token_id not in left[1:] and tokenizer.eos_token_id not in left[:-1]
    whole = iter(PROCESSOR(text=caption).input_ids[0])
    is_part = all(token in whole for token in left)
    assert is_part or prompt["input_ids"].tolist() == [list(PROCESSOR.mapping_prompt(1).input_ids[0])]
