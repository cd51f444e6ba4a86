"""The modules that M2C adds to CLIP: the token mapper and the visual semantic injection."""

import torch
from torch import nn
from transformers.activations import ACT2FN

from .configuration_m2c import M2CConfig


class TokenMapper(nn.Module):
    """Maps an image embedding to a pseudo-word token: phi of Pic2Word and of M2C, section "token mapper".

    `(batch_size, projection_dim)`, un-normalised, becomes `(batch_size, text_hidden_size)`, an input embedding of the text
    tower. Three linear layers; the activation decides between Pic2Word/M2C (ReLU) and SEARLE/LinCIR (GELU).
    """

    def __init__(self, config: M2CConfig):
        super().__init__()
        hidden_size = config.mapper_hidden_size
        self.fc1 = nn.Linear(config.projection_dim, hidden_size)
        self.fc2 = nn.Linear(hidden_size, hidden_size)
        self.fc_out = nn.Linear(hidden_size, config.text_config.hidden_size)
        self.activation = ACT2FN[config.mapper_hidden_act]
        self.dropout = nn.Dropout(config.mapper_dropout)

    def forward(self, image_embeds: torch.Tensor) -> torch.Tensor:
        # In this order for GELU; Pic2Word and M2C drop first, which is the same for ReLU.
        hidden = self.dropout(self.activation(self.fc1(image_embeds)))
        hidden = self.dropout(self.activation(self.fc2(hidden)))
        return self.fc_out(hidden)


class InjectionMLP(nn.Module):
    """Linear - Dropout - ReLU, twice. `(..., in_features)` becomes `(..., out_features)`, never negative."""

    def __init__(self, in_features: int, out_features: int, dropout: float):
        super().__init__()
        self.fc1 = nn.Linear(in_features, out_features)
        self.fc2 = nn.Linear(out_features, out_features)
        self.dropout = nn.Dropout(dropout)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        hidden_states = self.dropout(self.fc1(hidden_states)).relu()
        return self.dropout(self.fc2(hidden_states)).relu()


class InjectionCrossAttention(nn.Module):
    """One cross-attention layer: the pseudo-word, steered by end-of-text, looks at the patches.

    `LayerNorm(x + Dropout(Linear(GELU(Linear(attention(x + eos, patches))))))`: the attention has no residual of its own, and
    eos is part of the query without entering the residual stream.
    """

    def __init__(self, config: M2CConfig):
        super().__init__()
        width = config.injection_hidden_size
        self.num_heads = config.injection_num_attention_heads
        self.scaling = (width // self.num_heads) ** -0.5
        self.q_proj = nn.Linear(width, width)
        self.k_proj = nn.Linear(width, width)
        self.v_proj = nn.Linear(width, width)
        self.out_proj = nn.Linear(width, width)
        self.fc1 = nn.Linear(width, width)
        self.fc2 = nn.Linear(width, width)
        self.layer_norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(config.injection_dropout)

    def _heads(self, states: torch.Tensor) -> torch.Tensor:
        return states.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)

    def encode_patches(self, patches: torch.Tensor) -> torch.Tensor:
        """Keys and values, shape `(batch_size, 2, num_patches, injection_hidden_size)`."""
        return torch.stack([self.k_proj(patches), self.v_proj(patches)], dim=1)

    def forward(self, pseudo_word: torch.Tensor, end_of_text: torch.Tensor, keys_values: torch.Tensor) -> torch.Tensor:
        query = self._heads(self.q_proj(pseudo_word + end_of_text)[:, None])
        keys, values = (self._heads(states) for states in keys_values.unbind(1))
        # One query for each image: written out, this is faster than a fused kernel, whose backward pass is slow on a CPU.
        scores = (query * self.scaling) @ keys.transpose(-1, -2)
        attended = self.dropout(scores.softmax(dim=-1, dtype=torch.float32).to(values.dtype)) @ values
        attended = self.out_proj(attended.transpose(1, 2).flatten(2))[:, 0]
        update = self.fc2(nn.functional.gelu(self.fc1(attended)))
        return self.layer_norm(pseudo_word + self.dropout(update))


class InjectionBlock(nn.Module):
    """The injection after one text block.

    The patch side depends on the image alone, so `encode_patches` is apart from the text side: one encoding serves every
    text that is asked about an image.
    """

    def __init__(self, config: M2CConfig):
        super().__init__()
        hidden_size, width = config.text_config.hidden_size, config.injection_hidden_size
        dropout = config.injection_dropout
        self.conv = nn.Conv2d(hidden_size, hidden_size, kernel_size=3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(hidden_size)
        self.pseudo_word_mlp = InjectionMLP(hidden_size, width, dropout)
        self.patch_mlp = InjectionMLP(hidden_size, width, dropout)
        self.end_of_text_mlp = InjectionMLP(hidden_size, width, dropout)
        self.layers = nn.ModuleList(InjectionCrossAttention(config) for _ in range(config.injection_num_layers))
        self.out_mlp = InjectionMLP(width, hidden_size, dropout)

    def encode_patches(self, patches: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
        """
        Args:
            patches (`torch.Tensor` of shape `(batch_size, num_patches, text_hidden_size)`): projected patch tokens.
            grid (`tuple[int, int]`): rows and columns of the patches.

        Returns:
            Keys and values of the cross-attention layers, `torch.Tensor` of shape
            `(batch_size, num_layers, 2, num_patches, injection_hidden_size)`.
        """
        picture = patches.transpose(1, 2).unflatten(2, grid)
        picture = self.norm(self.conv(picture)).relu()
        encoded = self.patch_mlp(picture.flatten(2).transpose(1, 2))
        return torch.stack([layer.encode_patches(encoded) for layer in self.layers], dim=1)

    def forward(self, pseudo_word: torch.Tensor, end_of_text: torch.Tensor, keys_values: torch.Tensor) -> torch.Tensor:
        """
        Args:
            pseudo_word (`torch.Tensor` of shape `(batch_size, text_hidden_size)`): hidden state at the pseudo-word.
            end_of_text (`torch.Tensor` of shape `(batch_size, text_hidden_size)`): hidden state at end-of-text.
            keys_values (`torch.Tensor` of shape `(batch_size, num_layers, 2, num_patches, injection_hidden_size)`): from
                `encode_patches`.

        Returns:
            `torch.Tensor` of shape `(batch_size, text_hidden_size)`: what to add to the pseudo-word's hidden state.
        """
        states = self.pseudo_word_mlp(pseudo_word)
        steering = self.end_of_text_mlp(end_of_text)
        for layer, layer_keys_values in zip(self.layers, keys_values.unbind(1)):
            states = layer(states, steering, layer_keys_values)
        return self.out_mlp(states)


class VisualSemanticInjection(nn.Module):
    """Visual semantic injection (M2C, section of that name): one [`InjectionBlock`] for each of `config.injection_layers`.

    The blocks share the projection of the image's patch tokens into the text tower's space, and no other weight.
    """

    def __init__(self, config: M2CConfig):
        super().__init__()
        self.projection = nn.Linear(config.projection_dim, config.text_config.hidden_size)
        self.blocks = nn.ModuleDict({str(layer): InjectionBlock(config) for layer in config.injection_layers})

    def encode_patches(self, patches: torch.Tensor, grid: tuple[int, int] | None = None) -> tuple[torch.Tensor, ...]:
        """
        Args:
            patches (`torch.Tensor` of shape `(batch_size, num_patches, projection_dim)`): image tokens without the first.
            grid (`tuple[int, int]`, *optional*): rows and columns of the patches; a square by default.

        Returns:
            Keys and values for each block, as [`InjectionBlock.encode_patches`] gives them.

        Raises:
            ValueError: if the number of patches does not fit the grid.
        """
        grid = patch_grid(patches.shape[1], grid)
        projected = self.projection(patches)
        return tuple(block.encode_patches(projected, grid) for block in self.blocks.values())


def patch_grid(num_patches: int, grid: tuple[int, int] | None = None) -> tuple[int, int]:
    """`grid`, rows and columns of the patches, or by default a square. Raises `ValueError` if the patches do not fill it."""
    rows, columns = grid or (int(num_patches**0.5),) * 2
    if rows * columns != num_patches:
        raise ValueError(f"{num_patches} patches do not form a grid of {rows} x {columns}; pass grid=(rows, columns)")
    return rows, columns


__all__ = ["InjectionBlock", "TokenMapper", "VisualSemanticInjection", "patch_grid"]
