"""Checkpoints in the layouts of the original authors with random weights, and what their networks compute, from METHOD alone.

The reference works on the checkpoint's own tensors with torch's own layers; it shares no code with the model under test.
"""

from dataclasses import dataclass

import pytest
import torch
from torch import nn
from torch.nn import functional as F


@dataclass(frozen=True)
class Sizes:
    """Of a checkpoint; the default has widths that all differ."""

    text: int = 128
    vision: int = 64
    projection: int = 40
    depth: int = 6
    patch: int = 4
    grid: int = 3
    vocabulary: int = 60
    context: int = 12
    mapper: int = 24
    injection: int = 16
    va_layers: tuple[int, ...] = (1, 3, 5)
    ca_layers: tuple[int, ...] = (0, 3, 5)
    rank: int = 4
    seed: int = 0


class Writer:
    """A random state dict."""

    def __init__(self, seed: int):
        self.generator = torch.Generator().manual_seed(seed)
        self.tensors = {}

    def normal(self, name: str, *shape: int, std: float = 0.1, mean: float = 0.0) -> None:
        self.tensors[name] = mean + std * torch.randn(*shape, generator=self.generator)

    def linear(self, name: str, inputs: int, outputs: int) -> None:
        self.normal(f"{name}.weight", outputs, inputs, std=inputs**-0.5)
        self.normal(f"{name}.bias", outputs)

    def norm(self, name: str, width: int) -> None:
        self.normal(f"{name}.weight", width, mean=1.0)
        self.normal(f"{name}.bias", width)

    def attention(self, name: str, width: int) -> None:
        self.normal(f"{name}.in_proj_weight", 3 * width, width, std=width**-0.5)
        self.normal(f"{name}.in_proj_bias", 3 * width)
        self.linear(f"{name}.out_proj", width, width)

    def blocks(self, name: str, width: int, depth: int) -> None:
        for index in range(depth):
            self.attention(f"{name}.{index}.attn", width)
            self.norm(f"{name}.{index}.ln_1", width)
            self.linear(f"{name}.{index}.mlp.c_fc", width, 4 * width)
            self.linear(f"{name}.{index}.mlp.c_proj", 4 * width, width)
            self.norm(f"{name}.{index}.ln_2", width)


def _clip(sizes: Sizes) -> dict:
    out = Writer(sizes.seed)
    out.normal("positional_embedding", sizes.context, sizes.text)
    out.normal("text_projection", sizes.text, sizes.projection)
    out.tensors["logit_scale"] = torch.tensor(3.0)
    out.normal("visual.class_embedding", sizes.vision)
    out.normal("visual.positional_embedding", sizes.grid**2 + 1, sizes.vision)
    out.normal("visual.proj", sizes.vision, sizes.projection)
    out.normal("visual.conv1.weight", sizes.vision, 3, sizes.patch, sizes.patch)
    out.norm("visual.ln_pre", sizes.vision)
    out.blocks("visual.transformer.resblocks", sizes.vision, 2)
    out.norm("visual.ln_post", sizes.vision)
    out.blocks("transformer.resblocks", sizes.text, sizes.depth)
    out.normal("token_embedding.weight", sizes.vocabulary, sizes.text)
    out.norm("ln_final", sizes.text)
    return out.tensors


def _injection(sizes: Sizes) -> dict:
    out = Writer(sizes.seed + 1)
    out.linear("layers.layers.0.0", sizes.projection, sizes.mapper)
    out.linear("layers.layers.1.0", sizes.mapper, sizes.mapper)
    out.linear("fc_out", sizes.mapper, sizes.text)
    out.linear("fc_out_hidden", sizes.projection, sizes.text)
    for index in range(len(sizes.va_layers)):
        name = f"adapters.{index}"
        out.normal(f"{name}.conv.0.weight", sizes.text, sizes.text, 3, 3, std=0.05)
        out.norm(f"{name}.conv.1", sizes.text)
        out.normal(f"{name}.conv.1.running_mean", sizes.text)
        out.tensors[f"{name}.conv.1.running_var"] = torch.rand(sizes.text, generator=out.generator) + 0.5
        out.tensors[f"{name}.conv.1.num_batches_tracked"] = torch.tensor(7)
        for branch in (1, 2, 3):
            out.linear(f"{name}.hid_{branch}.layers.0.0", sizes.text, sizes.injection)
            out.linear(f"{name}.hid_{branch}.layers.1.0", sizes.injection, sizes.injection)
        for layer in range(2):
            out.attention(f"{name}.ca.layers.{layer}.multihead_attn", sizes.injection)
            out.linear(f"{name}.ca.layers.{layer}.linear1", sizes.injection, sizes.injection)
            out.linear(f"{name}.ca.layers.{layer}.linear2", sizes.injection, sizes.injection)
            out.norm(f"{name}.ca.layers.{layer}.norm2", sizes.injection)
        out.linear(f"{name}.rehid.layers.0.0", sizes.injection, sizes.text)
        out.linear(f"{name}.rehid.layers.1.0", sizes.text, sizes.text)
    return out.tensors


def _residual(sizes: Sizes) -> dict:
    out = Writer(sizes.seed + 2)
    for index in range(len(sizes.ca_layers)):
        out.normal(f"lora_layers.{index}.A", sizes.text, sizes.rank)
        out.normal(f"lora_layers.{index}.B", sizes.rank, sizes.text)
    return out.tensors


@pytest.fixture
def make_m2c():
    def make(sizes: Sizes = Sizes()) -> dict:
        return {
            "epoch": 3,
            "state_dict": _clip(sizes),
            "state_dict_img2text": _injection(sizes),
            "state_dict_lora": _residual(sizes),
            "args": {"va_layers": list(sizes.va_layers), "ca_layers": list(sizes.ca_layers)},
        }

    return make


@pytest.fixture
def make_pic2word():
    def make(sizes: Sizes = Sizes()) -> dict:
        out = Writer(sizes.seed + 1)
        out.linear("layers.0.0", sizes.projection, sizes.mapper)
        out.linear("layers.1.0", sizes.mapper, sizes.mapper)
        out.linear("fc_out", sizes.mapper, sizes.text)
        return {"name": "run", "state_dict": _clip(sizes), "state_dict_img2text": out.tensors, "optimizer": {"step": 5}}

    return make


class Reference:
    """The forward pass of the authors' networks. Images are of shape `(batch, 3, side, side)`, ids `(batch, context)`."""

    def __init__(self, checkpoint: dict):
        self.clip, self.mapper = checkpoint["state_dict"], checkpoint["state_dict_img2text"]
        self.residual = checkpoint.get("state_dict_lora", {})
        self.arguments = checkpoint.get("args", {})

    def hidden(self, images: torch.Tensor) -> torch.Tensor:
        """All vision tokens behind the projection."""
        state = self.clip
        width, _, patch, _ = state["visual.conv1.weight"].shape
        x = F.conv2d(images, state["visual.conv1.weight"], stride=patch).flatten(2).transpose(1, 2)
        x = torch.cat([state["visual.class_embedding"].expand(len(x), 1, width), x], 1) + state["visual.positional_embedding"]
        x = _norm(x, state, "visual.ln_pre")
        for index in range(2):
            x = _block(x, state, f"visual.transformer.resblocks.{index}.", None)
        return _norm(x, state, "visual.ln_post") @ state["visual.proj"]

    def token(self, v: torch.Tensor, layers: str) -> torch.Tensor:
        for index in range(2):
            v = _linear(v, self.mapper, f"{layers}{index}.0").relu()
        return _linear(v, self.mapper, "fc_out")

    def text(self, ids, token=None, position=None, hidden=None, residual=False) -> torch.Tensor:
        """Text features; composed ones if a token is given, with injection if the hidden image tokens are."""
        state, rows, end = self.clip, torch.arange(len(ids)), ids.argmax(-1)
        x = state["token_embedding.weight"][ids]
        if token is not None:
            x[rows, position] = token
        x = x + state["positional_embedding"][: ids.shape[1]]
        mask = torch.full((ids.shape[1],) * 2, float("-inf")).triu(1)
        depth = len({name.split(".")[2] for name in state if name.startswith("transformer.resblocks.")})
        injected = self.arguments.get("va_layers", []) if hidden is not None else []
        for index in range(depth):
            x = _block(x, state, f"transformer.resblocks.{index}.", mask)
            if index in injected:
                x[rows, position] = x[rows, position] + self._inject(
                    injected.index(index), x[rows, end], x[rows, position], hidden
                )
            if residual and index in self.arguments["ca_layers"]:
                k = self.arguments["ca_layers"].index(index)
                x = x + x @ self.residual[f"lora_layers.{k}.A"] @ self.residual[f"lora_layers.{k}.B"]
        return _norm(x, state, "ln_final")[rows, end] @ state["text_projection"]

    def _inject(self, k: int, eos: torch.Tensor, word: torch.Tensor, hidden: torch.Tensor) -> torch.Tensor:
        state, name = self.mapper, f"adapters.{k}"
        patches = _linear(hidden, state, "fc_out_hidden")[:, 1:]
        side = int(patches.shape[1] ** 0.5)
        picture = patches.transpose(1, 2).reshape(len(patches), -1, side, side)
        picture = F.conv2d(picture, state[f"{name}.conv.0.weight"], padding=1)
        picture = F.batch_norm(
            picture,
            *(state[f"{name}.conv.1.{key}"] for key in ("running_mean", "running_var", "weight", "bias")),
        ).relu()
        patches = _mlp(picture.flatten(2).transpose(1, 2), state, f"{name}.hid_2")
        word, eos = _mlp(word, state, f"{name}.hid_1")[:, None], _mlp(eos, state, f"{name}.hid_3")[:, None]
        for layer in range(2):
            here = f"{name}.ca.layers.{layer}"
            z = _attention(word + eos, patches, state, f"{here}.multihead_attn", 8, None)
            z = _linear(F.gelu(_linear(z, state, f"{here}.linear1")), state, f"{here}.linear2")
            word = _norm(word + z, state, f"{here}.norm2")
        return _mlp(word[:, 0], state, f"{name}.rehid")


def _linear(x, state, name):
    return F.linear(x, state[f"{name}.weight"], state[f"{name}.bias"])


def _mlp(x, state, name):
    return _linear(_linear(x, state, f"{name}.layers.0.0").relu(), state, f"{name}.layers.1.0").relu()


def _norm(x, state, name):
    return F.layer_norm(x, x.shape[-1:], state[f"{name}.weight"], state[f"{name}.bias"])


def _attention(query, keys, state, name, heads, mask):
    layer = nn.MultiheadAttention(query.shape[-1], heads, batch_first=True)
    layer.load_state_dict({key.removeprefix(f"{name}."): state[key] for key in state if key.startswith(f"{name}.")})
    return layer(query, keys, keys, attn_mask=mask, need_weights=False)[0]


def _block(x, state, name, mask):
    normed = _norm(x, state, f"{name}ln_1")
    x = x + _attention(normed, normed, state, f"{name}attn", x.shape[-1] // 64, mask)
    hidden = _linear(_norm(x, state, f"{name}ln_2"), state, f"{name}mlp.c_fc")
    return x + _linear(hidden * torch.sigmoid(1.702 * hidden), state, f"{name}mlp.c_proj")


@pytest.fixture
def make_reference():
    return Reference


@pytest.fixture
def sizes():
    return Sizes
