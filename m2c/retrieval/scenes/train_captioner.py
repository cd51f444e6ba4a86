"""Trains the tiny captioner of the scenes world, and writes it as a checkpoint that BLIP's class loads.

    python -m m2c.retrieval.scenes.train_captioner --output first
    python -m m2c.retrieval.scenes.train_captioner --output captioner --start first --lr 7e-4 --seed 1

The checkpoint in `m2c/retrieval/scenes/captioner` was made by these two commands. Pictures and captions are drawn on the fly.
What looks at them starts as the vision tower of the CLIP of scenes, which knows this world already; what writes starts from
nothing. The captions are as people write them, so those that are sampled from the model vary in their words and in what they
leave out.
"""

import argparse
import json
from collections import Counter
from pathlib import Path

import torch
from transformers import (
    BlipConfig,
    BlipForConditionalGeneration,
    BlipImageProcessorPil,
    BlipProcessor,
    BlipVisionModel,
    CLIPVisionConfig,
    CLIPVisionModel,
    GenerationConfig,
    PreTrainedTokenizerFast,
)

from m2c.data.scenes import CLIP_PATH
from m2c.data.scenes.language import plain_caption
from m2c.data.scenes.rendering import IMAGE_SIZE, render
from m2c.data.scenes.train_clip import CONTEXT, PIXEL_MEAN, PIXEL_STD, build_tokenizer, draw_pixels
from m2c.data.scenes.world import random_scene, seeded
from m2c.retrieval.captioning import Captioner, CaptionSettings, load_captioner

from .fitting import add_arguments, fit, write_record
from .reading import judge


# What BLIP's vision tower has in common with CLIP's.
SHARED_WITH_CLIP = (
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "image_size",
    "patch_size",
    "hidden_act",
    "layer_norm_eps",
)


def build_config(tokenizer: PreTrainedTokenizerFast, clip: CLIPVisionConfig) -> BlipConfig:
    return BlipConfig(
        vision_config={
            **{name: getattr(clip, name) for name in SHARED_WITH_CLIP},
        },
        text_config={
            "hidden_size": 128,
            "intermediate_size": 384,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "encoder_hidden_size": clip.hidden_size,
            "label_smoothing": 0.0,
            "max_position_embeddings": CONTEXT,
            "vocab_size": len(tokenizer),
            "pad_token_id": tokenizer.pad_token_id,
            "bos_token_id": tokenizer.bos_token_id,
            "eos_token_id": tokenizer.eos_token_id,
            # BLIP's `generate` ends at this one.
            "sep_token_id": tokenizer.eos_token_id,
        },
    )


@torch.no_grad()
def start_from_clip(vision: BlipVisionModel, clip: CLIPVisionModel, pixels: torch.Tensor) -> None:
    """Gives BLIP's vision tower the weights of CLIP's.

    CLIP normalises its embeddings before the first block, which BLIP does not. Where their spread is about the same in all
    pictures, that is a linear map, and becomes a part of the embeddings.

    Args:
        vision: gets the weights.
        clip: of the same sizes.
        pixels (`torch.Tensor` of shape `(num_pictures, 3, height, width)`): pictures to measure the spread on.
    """
    norm = clip.pre_layrnorm
    embedded = clip.embeddings(pixels)
    spread = (embedded.var(dim=-1, unbiased=False) + norm.eps).sqrt().mean(dim=0)
    spread[1:] = spread[1:].mean()  # one convolution makes all patches

    def normalised(weights: torch.Tensor, spread: torch.Tensor) -> torch.Tensor:
        return (weights - weights.mean(dim=-1, keepdim=True)) / spread * norm.weight

    target, own = vision.embeddings, clip.embeddings
    patches = own.patch_embedding.weight
    flat = normalised(patches.flatten(1).T, spread[1]).T
    target.patch_embedding.weight.copy_(flat.reshape(patches.shape))
    target.patch_embedding.bias.zero_()
    target.class_embedding.copy_(normalised(own.class_embedding, spread[0]))
    target.position_embedding.copy_(normalised(own.position_embedding.weight, spread[:, None]) + norm.bias)
    for block, given in zip(vision.encoder.layers, clip.encoder.layers):
        attention, heads = block.self_attn, given.self_attn
        parts = (heads.q_proj, heads.k_proj, heads.v_proj)
        attention.qkv.weight.copy_(torch.cat([part.weight for part in parts]))
        attention.qkv.bias.copy_(torch.cat([part.bias for part in parts]))
        attention.projection.load_state_dict(heads.out_proj.state_dict())
        for name in ("layer_norm1", "layer_norm2", "mlp"):
            getattr(block, name).load_state_dict(getattr(given, name).state_dict())
    vision.post_layernorm.load_state_dict(clip.post_layernorm.state_dict())


def build_processor(tokenizer: PreTrainedTokenizerFast) -> BlipProcessor:
    image_processor = BlipImageProcessorPil(
        size={"height": IMAGE_SIZE, "width": IMAGE_SIZE}, image_mean=list(PIXEL_MEAN), image_std=list(PIXEL_STD)
    )
    return BlipProcessor(image_processor, tokenizer)


def caption_loss(
    model: BlipForConditionalGeneration, tokenizer: PreTrainedTokenizerFast, pixels: torch.Tensor, captions: list[list[str]]
) -> torch.Tensor:
    """Mean cross-entropy of the words of equally many captions for each picture. Each picture is looked at once."""
    text = tokenizer([caption for group in captions for caption in group], padding=True, return_tensors="pt")
    seen = model.vision_model(pixels).last_hidden_state.repeat_interleave(len(captions[0]), dim=0)
    labels = text.input_ids.masked_fill(text.attention_mask == 0, -100)
    return model.text_decoder(text.input_ids, text.attention_mask, encoder_hidden_states=seen, labels=labels).loss


def evaluate(captioner: Captioner, count: int = 512) -> dict[str, float]:
    """What greedy captions of scenes never seen in training say rightly, of all that they say."""
    rng = seeded("captioner", "held-out")
    scenes = [random_scene(rng) for _ in range(count)]
    counts: Counter = Counter()
    for start in range(0, count, captioner.batch_size):
        shown = scenes[start : start + captioner.batch_size]
        pictures = [render(scene, rng) for scene in shown]
        for replies in captioner.captions(pictures, [""] * len(shown), [0]):
            for row, _, caption in replies:
                counts += judge(caption, shown[row])
    names = ("shape", "color", "size", "texture", "place", "background")
    rates = {f"right_{name}": round(counts["right", name] / max(1, counts["said", name]), 4) for name in names}
    said, right = (sum(counts[what, name] for name in names) for what in ("said", "right"))
    objects = sum(len(scene.objects) for scene in scenes)
    return {
        "right_attributes": round(right / max(1, said), 4),
        **rates,
        "mentioned_objects": round(1 - counts["missed"] / objects, 4),
    }


def _start(args: argparse.Namespace, tokenizer: PreTrainedTokenizerFast) -> BlipForConditionalGeneration:
    if args.start:
        return BlipForConditionalGeneration.from_pretrained(args.start, dtype=torch.float32)
    clip = CLIPVisionModel.from_pretrained(CLIP_PATH, dtype=torch.float32)
    model = BlipForConditionalGeneration(build_config(tokenizer, clip.config))
    rng = seeded("captioner", args.seed, "start")
    start_from_clip(model.vision_model, clip, draw_pixels(rng, [random_scene(rng) for _ in range(256)]))
    return model


def train(args: argparse.Namespace) -> None:
    torch.manual_seed(args.seed)
    tokenizer = build_tokenizer()
    model = _start(args, tokenizer)

    def loss_at(step: int) -> torch.Tensor:
        rng = seeded("captioner", args.seed, step)
        scenes = [random_scene(rng) for _ in range(args.batch_size)]
        captions = [[plain_caption(rng, scene) for _ in range(args.captions_per_picture)] for scene in scenes]
        return caption_loss(model, tokenizer, draw_pixels(rng, scenes), captions)

    figures = fit(model, loss_at, args)
    if args.start:  # in the record, what it was made by; where it lay is nobody's business
        args.start = json.loads(Path(args.start, "training.json").read_text())
    model.generation_config = GenerationConfig(max_new_tokens=CONTEXT)
    # Half precision halves the file; the rounding costs nothing (measure both to see).
    model.half().save_pretrained(args.output)
    build_processor(tokenizer).save_pretrained(args.output)
    captioner = load_captioner(args.output, CaptionSettings(temperature=0))
    write_record("m2c.retrieval.scenes.train_captioner", args, {**figures, **evaluate(captioner)})


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser, steps=2200, batch_size=64, lr=1e-3)
    parser.add_argument("--start", help="go on from a captioner that this script wrote, instead of beginning with CLIP's eyes")
    parser.add_argument("--captions_per_picture", type=int, default=2, help="captions learned from each picture (%(default)s)")
    return parser.parse_args(argv)


if __name__ == "__main__":
    train(parse_args())
