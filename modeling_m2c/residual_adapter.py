"""The low-rank adapters of the authors' own M2C checkpoints."""

import torch
from torch import nn

from .configuration_m2c import M2CConfig


class ResidualAdapter(nn.Module):
    """`x + (x A) B` on the hidden states after a text block: what the authors' code calls LoRA.

    PEFT's LoRA adds a low-rank term to the output of a linear layer. Here there is none to add it to: the term acts on all of
    the residual stream, also on what the skip connections carry past every linear layer, and the layer norm that follows
    keeps it from being folded into the next ones. So it is a module of its own, for converted checkpoints; training uses PEFT.
    """

    def __init__(self, config: M2CConfig):
        super().__init__()
        hidden_size, rank = config.text_config.hidden_size, config.residual_adapter_rank
        self.down = nn.Linear(hidden_size, rank, bias=False)
        self.up = nn.Linear(rank, hidden_size, bias=False)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """`(batch_size, sequence_length, text_hidden_size)` stays that."""
        return hidden_states + self.up(self.down(hidden_states))


__all__ = ["ResidualAdapter"]
