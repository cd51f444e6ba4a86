"""From a checkpoint of the original authors to an M2C model with its processor."""

import argparse
import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import torch
from transformers import AutoTokenizer, CLIPImageProcessorPil, PreTrainedTokenizerBase

from m2c.checkpoints import is_m2c, load_model, load_processor, public_name, save_retriever
from m2c.conventions import PROMPTS
from m2c.output_folder import new_folder
from modeling_m2c import M2CConfig, M2CModel
from processing_m2c import M2CProcessor

from .checkpoint import Tensors, read_checkpoint
from .modules import Widths, convert_gelu_mapper, convert_injection, convert_relu_mapper, convert_residual_adapters
from .openai_clip import convert_clip


RECORD = "conversion.json"
# Where the tokenizer of OpenAI's vocabulary is to be had; their checkpoints do not carry it.
OPENAI_TOKENIZER = "openai/clip-vit-large-patch14"
OPENAI_VOCAB_SIZE = 49408


def convert(
    checkpoint: str | Path, output: str | Path, method: str, clip: str | None = None, warn: Callable[[str], None] = print
) -> None:
    """Converts a checkpoint and writes a folder that `AutoModel.from_pretrained` loads, with a record, `conversion.json`.

    Args:
        checkpoint: the file.
        output: the folder; it appears when all is done.
        method: whose layout it is: `"m2c"`, `"pic2word"`, `"searle"` or `"lincir"`.
        clip: SEARLE and LinCIR: the CLIP that the mapper was trained with. M2C and Pic2Word checkpoints carry their CLIP; there
            it is where to take the tokenizer from.
        warn: takes a line about what could not be had.

    Raises:
        ValueError: if the checkpoint cannot be read, is of another layout, or does not fit the CLIP; the message names the
            tensor.
        FileExistsError: if `output` exists and is not empty. Nothing in it is touched.
    """
    if method not in PROMPTS:
        raise ValueError(f"the method is one of {', '.join(PROMPTS)}, not {method!r}")
    with new_folder(Path(output)) as folder:
        if method in ("searle", "lincir"):
            model = load_mapper(checkpoint, clip)
            processor = load_processor(clip, composing_template=PROMPTS[method])
        else:
            model = load_original(checkpoint, method)
            processor = _processor(model.config, method, clip, warn)
        save_retriever(model, processor, folder)
        record = {
            "method": method,
            "file": Path(checkpoint).name,
            "sha256": _sha256(checkpoint),
            "clip": None if clip is None else public_name(clip),
        }
        (folder / RECORD).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


def load_original(checkpoint: str | Path, method: str) -> M2CModel:
    """The model in a checkpoint of the M2C (`"m2c"`) or Pic2Word (`"pic2word"`) authors, in eval mode and float32.

    Raises:
        ValueError: see [`convert`].
    """
    content = read_checkpoint(checkpoint)
    config, weights = convert_clip(Tensors(content, "state_dict"))
    widths = Widths(config["projection_dim"], config["text_config"]["hidden_size"])
    mapper = Tensors(content, "state_dict_img2text")
    if method == "m2c":
        arguments = _arguments(content)
        parts = [
            convert_relu_mapper(mapper, widths, "layers.layers."),
            convert_injection(mapper, widths, arguments.get("va_layers")),
        ]
        if content.get("state_dict_lora") is not None:
            adapters = Tensors(content, "state_dict_lora")
            parts.append(convert_residual_adapters(adapters, widths, arguments.get("ca_layers")))
            adapters.finish()
    else:
        parts = [convert_relu_mapper(mapper, widths, "layers.")]
    mapper.finish()
    for fields, part in parts:
        config |= fields
        weights |= part
    return _build(config, weights)


def load_mapper(checkpoint: str | Path, clip: str | None) -> M2CModel:
    """A CLIP with the mapper in a SEARLE or LinCIR checkpoint, in eval mode and float32.

    Raises:
        ValueError: see [`convert`].
    """
    if clip is None:
        raise ValueError(
            "SEARLE and LinCIR checkpoints hold the mapper only; name the CLIP that it was trained with, for example "
            "--clip openai/clip-vit-large-patch14"
        )
    if is_m2c(clip):
        raise ValueError(f"{clip!r} is an M2C model; name the plain CLIP that the mapper was trained with")
    tensors = Tensors(read_checkpoint(checkpoint), "Phi")
    plain = load_model(clip, injection_layers=[])
    try:
        fields, weights = convert_gelu_mapper(
            tensors, Widths(plain.config.projection_dim, plain.config.text_config.hidden_size)
        )
    except ValueError as error:
        raise ValueError(f"{error}; was the mapper trained with another CLIP than {clip!r}?") from error
    tensors.finish()
    clip_weights = {name: tensor for name, tensor in plain.state_dict().items() if not name.startswith("token_mapper.")}
    return _build({**plain.config.to_dict(), **fields}, clip_weights | weights)


def _arguments(content: dict) -> dict:
    """The command line that the authors keep in a checkpoint, if they do."""
    arguments = content.get("args", {})
    if isinstance(arguments, argparse.Namespace):
        return vars(arguments)
    if not isinstance(arguments, dict):
        raise ValueError(f"args should be a Namespace or a dictionary; it is a {type(arguments).__name__}")
    return arguments


def _build(config: dict, weights: dict[str, torch.Tensor]) -> M2CModel:
    return M2CModel.from_pretrained(None, config=M2CConfig(**config), state_dict=weights, dtype=torch.float32).eval()


def _processor(
    config: M2CConfig, method: str, clip: str | None, warn: Callable[[str], None]
) -> M2CProcessor | CLIPImageProcessorPil:
    """OpenAI's image preprocessing at the model's size, and the tokenizer; without a tokenizer the image processor alone."""
    size = config.vision_config.image_size
    image_processor = CLIPImageProcessorPil(size={"shortest_edge": size}, crop_size={"height": size, "width": size})
    tokenizer = _tokenizer(config.text_config.vocab_size, clip)
    if tokenizer is None:
        fits = config.text_config.vocab_size == OPENAI_VOCAB_SIZE
        reason = f"{OPENAI_TOKENIZER} could not be reached" if fits else "its vocabulary is not that of OpenAI's CLIP"
        warn(
            f"warning: the checkpoint carries no tokenizer, and {reason}. Model and image processor are written, but nothing "
            "to encode texts with; convert again with --clip and a folder that has the tokenizer"
        )
        return image_processor
    return M2CProcessor(image_processor, tokenizer, composing_template=PROMPTS[method])


def _tokenizer(vocab_size: int, clip: str | None) -> PreTrainedTokenizerBase | None:
    """That of `clip`; else OpenAI's, if it fits and can be had. Raises `ValueError` if that of `clip` does not fit."""
    if clip is None and vocab_size != OPENAI_VOCAB_SIZE:
        return None
    try:
        tokenizer = AutoTokenizer.from_pretrained(clip or OPENAI_TOKENIZER)
    except (OSError, ValueError) as error:
        if clip is None:
            return None
        raise ValueError(f"cannot load a tokenizer from {clip!r}: {error}") from error
    if len(tokenizer) != vocab_size:
        raise ValueError(f"the tokenizer of {clip!r} knows {len(tokenizer)} tokens, the checkpoint {vocab_size}")
    return tokenizer


def _sha256(path: str | Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
