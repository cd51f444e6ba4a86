"""Sampling whose outcome depends on a key alone: not on the batch, the device, or how many samples are drawn."""

import hashlib
from collections.abc import Sequence

import torch
from transformers import LogitsProcessor, TopPLogitsWarper


class GumbelSampler(LogitsProcessor):
    """Draws the next token of each row and leaves no other: with or without `do_sample`, `generate` can only take it.

    A token is drawn by the Gumbel-max trick (Maddison et al., "A* Sampling", 2014): the argmax of logits plus standard Gumbel
    noise is a sample of their softmax. The noise is a hash of the row's key, the step and the token, so a row gets the same one
    wherever it stands. Where rounding differs between batches, the argmax mostly does not: a token changes only if two are as
    near to each other as the rounding.

    Serves one call of `generate`, without beams, as it counts the steps.

    Args:
        keys: one for each row, in the order of `generate`: with `num_return_sequences` those of one prompt follow each other.
            Rows with the same key and the same logits get the same text.
        temperature: of all rows, or of each. 0 is greedy.
        top_p: a token is drawn from the fewest that together have this probability, 1 from all.

    Raises:
        ValueError: in `generate`, if there are not as many rows as keys.
    """

    def __init__(self, keys: Sequence[str | int], temperature: float | Sequence[float] = 1.0, top_p: float = 1.0):
        self.keys = keys
        self.temperature = torch.tensor(temperature).expand(len(keys))[:, None]
        self.nucleus = TopPLogitsWarper(top_p) if top_p < 1 else None
        self.step = 0

    def __call__(self, input_ids: torch.LongTensor, scores: torch.Tensor) -> torch.Tensor:
        """`scores` of shape `(rows, vocabulary)`; returns the same shape, 0 for the token drawn and `-inf` for the others."""
        if len(scores) != len(self.keys):
            raise ValueError(f"{len(scores)} rows are generated, with keys for {len(self.keys)}; give one key for each row")
        temperature = self.temperature.to(scores.device)
        greedy = temperature == 0
        logits = scores.float() / temperature.masked_fill(greedy, 1)
        if self.nucleus is not None:
            logits = self.nucleus(input_ids, logits)
        drawn = (logits + self._noise(logits).masked_fill(greedy, 0)).argmax(dim=-1, keepdim=True)
        self.step += 1
        return torch.full_like(scores, -torch.inf).scatter(1, drawn, 0)

    def _noise(self, logits: torch.Tensor) -> torch.Tensor:
        """Standard Gumbel noise of the shape of `logits`."""
        seeds = torch.tensor([_seed(key, self.step) for key in self.keys], device=logits.device)
        tokens = torch.arange(logits.shape[1], device=logits.device)
        # 53 bits, as many as float64 holds, and never 0 or 1.
        uniform = ((_scrambled(seeds[:, None] + tokens * _GOLDEN_RATIO) & (2**53 - 1)) + 0.5) / 2**53
        return -(-uniform.log()).log().float()


def _seed(key: str | int, step: int) -> int:
    return int.from_bytes(hashlib.sha256(f"{step} {key}".encode()).digest()[:8], signed=True)


# SplitMix64 (Steele et al., "Fast Splittable Pseudorandom Number Generators", 2014), of which every number can be had without
# those before it. The constants are the published ones as signed integers of 64 bits; products wrap around.
_GOLDEN_RATIO, _FIRST, _SECOND = (n - 2**64 for n in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB))


def _scrambled(state: torch.Tensor) -> torch.Tensor:
    state = (state ^ _shifted(state, 30)) * _FIRST
    state = (state ^ _shifted(state, 27)) * _SECOND
    return state ^ _shifted(state, 31)


def _shifted(state: torch.Tensor, bits: int) -> torch.Tensor:
    """To the right, filled with zeros, which `>>` fills with the sign."""
    return (state >> bits) & (2 ** (64 - bits) - 1)
