import hashlib

import pytest
import torch
from torch.testing import assert_close

from m2c.retrieval.sampling import GumbelSampler


LOGITS = torch.tensor([1.0, 3.0, 2.0, -1.0, 2.5])


def draw(logits: torch.Tensor, keys, steps: int = 1, **settings) -> torch.Tensor:
    """Tokens of shape `(rows, steps)`, of the same logits at every step."""
    sampler = GumbelSampler(keys, **settings)
    scores = [sampler(None, logits.expand(len(keys), -1)) for _ in range(steps)]
    assert all((score.isfinite().sum(dim=-1) == 1).all() for score in scores)
    return torch.stack([score.argmax(dim=-1) for score in scores], dim=1)


def frequencies(tokens: torch.Tensor, size: int = 5) -> torch.Tensor:
    return tokens.flatten().bincount(minlength=size) / tokens.numel()


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_tokens_are_as_frequent_as_the_softmax_says(temperature):
    tokens = draw(LOGITS, range(5000), steps=2, temperature=temperature)
    expected = (LOGITS / temperature).softmax(dim=-1)
    assert_close(frequencies(tokens), expected, atol=0.02, rtol=0)
    # Also where the same key goes on, and not only over keys.
    assert_close(frequencies(draw(LOGITS, ["one"], steps=1500, temperature=temperature)), expected, atol=0.05, rtol=0)


def test_tokens_of_one_key_are_independent_from_step_to_step():
    first, second = draw(torch.zeros(4), range(8000), steps=2).T
    assert_close(frequencies(first * 4 + second, 16), torch.full((16,), 1 / 16), atol=0.015, rtol=0)


def test_the_nucleus_is_the_fewest_tokens_that_have_the_probability():
    # Probabilities 0.47, 0.28, 0.17, 0.06, 0.01.
    assert frequencies(draw(LOGITS, range(1000), top_p=0.4)).nonzero().flatten().tolist() == [1]
    assert frequencies(draw(LOGITS, range(1000), top_p=0.7)).nonzero().flatten().tolist() == [1, 4]
    assert frequencies(draw(LOGITS, range(1000), top_p=0.9)).nonzero().flatten().tolist() == [1, 2, 4]


def test_a_row_draws_the_same_in_every_batch():
    keys, logits = [f"image {i}" for i in range(6)], torch.randn(6, 50, generator=torch.Generator().manual_seed(0))
    sampler, permuted = GumbelSampler(keys), GumbelSampler(keys[::-1])
    single = [GumbelSampler([key]) for key in keys]
    for _ in range(10):
        together = sampler(None, logits)
        assert torch.equal(together, permuted(None, logits.flip(0)).flip(0))
        assert torch.equal(together, torch.cat([alone(None, row[None]) for alone, row in zip(single, logits)]))


def test_keys_decide():
    tokens = draw(torch.zeros(1000), ["a", "b", "a"], steps=8)
    assert torch.equal(tokens[0], tokens[2])
    assert (tokens[0] != tokens[1]).all()


def test_temperature_zero_is_greedy_beside_rows_that_are_not():
    tokens = draw(LOGITS, ["a"] * 200 + list(range(200)), temperature=[0.0] * 200 + [5.0] * 200)
    assert (tokens[:200] == LOGITS.argmax()).all()
    assert len(tokens[200:].unique()) == 5
    # A tie is no reason to draw.
    assert torch.equal(draw(torch.zeros(5), range(20), temperature=0), torch.zeros(20, 1, dtype=torch.long))


def test_what_is_ruled_out_is_never_drawn():
    logits = LOGITS.clone()
    logits[1] = -torch.inf
    assert frequencies(draw(logits, range(2000), temperature=10))[1] == 0


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_draws_as_float32(dtype):
    scores = torch.randn(8, 300, generator=torch.Generator().manual_seed(0)).to(dtype)
    half = GumbelSampler(range(8), temperature=0.7, top_p=0.9)(None, scores)
    assert half.dtype == dtype
    assert torch.equal(half, GumbelSampler(range(8), temperature=0.7, top_p=0.9)(None, scores.float()).to(dtype))


def test_the_noise_is_the_published_hash():
    """Wherever it runs, so that stored texts can be made again: SplitMix64 in plain integers."""
    state = int.from_bytes(hashlib.sha256(b"0 some key").digest()[:8])
    expected = []
    for token in range(100):
        z = (state + token * 0x9E3779B97F4A7C15) % 2**64
        z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
        z = (z ^ (z >> 27)) * 0x94D049BB133111EB % 2**64
        z ^= z >> 31
        expected.append((z % 2**53 + 0.5) / 2**53)
    uniform = torch.tensor([expected], dtype=torch.float64)
    noise = -(-uniform.log()).log().float()
    assert_close(GumbelSampler(["some key"])._noise(torch.zeros(1, 100)), noise)


def test_rows_without_keys_are_named():
    with pytest.raises(ValueError, match="4 rows are generated, with keys for 2"):
        GumbelSampler(["a", "b"])(None, torch.zeros(4, 5))
