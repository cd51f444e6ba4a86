"""Trains the tiny CLIP of the scenes world from scratch, and writes it as a checkpoint that `CLIPModel` loads.

    python -m m2c.data.scenes.train_clip --output clip

The checkpoint in `m2c/data/scenes/clip` was made by this command with its defaults. Images and captions are drawn on the fly;
in the later part of the run half of every batch is groups of edits of one scene, so that CLIP has to see small differences.
"""

import argparse
import json
import math
import time
from pathlib import Path
from random import Random

import numpy as np
import torch
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors
from tqdm.auto import tqdm
from transformers import CLIPConfig, CLIPImageProcessorPil, CLIPModel, PreTrainedModel, PreTrainedTokenizerFast

from .edits import apply_edits, random_edits
from .language import full_caption, plain_caption, random_caption, vocabulary
from .rendering import IMAGE_SIZE, render_array
from .world import Scene, random_scene, seeded


CONTEXT = 40
SPECIAL_TOKENS = ("<pad>", "<unk>", "<start>", "<end>")
PIXEL_MEAN = PIXEL_STD = (0.5, 0.5, 0.5)


def build_tokenizer() -> PreTrainedTokenizerFast:
    """Word-level tokenizer over the words of the scenes world; punctuation other than `*` is ignored."""
    words = [*SPECIAL_TOKENS, "*", *vocabulary()]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFKC(), normalizers.Lowercase(), normalizers.Replace(Regex(r"[^\w\s*]"), " ")]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    # The end-of-text id is 3, not 2: transformers' CLIP treats id 2 as a mark of old checkpoints and pools elsewhere.
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<start> $A <end>", special_tokens=[("<start>", 2), ("<end>", 3)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        unk_token="<unk>",
        bos_token="<start>",
        eos_token="<end>",
        model_max_length=CONTEXT,
    )


def build_config(tokenizer: PreTrainedTokenizerFast) -> CLIPConfig:
    return CLIPConfig(
        projection_dim=128,
        vision_config={
            "hidden_size": 192,
            "intermediate_size": 768,
            "hidden_act": "gelu",
            "num_hidden_layers": 4,
            "num_attention_heads": 3,
            "image_size": IMAGE_SIZE,
            "patch_size": 8,
            "projection_dim": 128,
        },
        text_config={
            "hidden_size": 128,
            "intermediate_size": 512,
            "hidden_act": "gelu",
            "num_hidden_layers": 4,
            "num_attention_heads": 2,
            "max_position_embeddings": CONTEXT,
            "vocab_size": len(tokenizer),
            "projection_dim": 128,
            "pad_token_id": tokenizer.pad_token_id,
            "bos_token_id": tokenizer.bos_token_id,
            "eos_token_id": tokenizer.eos_token_id,
        },
    )


def build_image_processor() -> CLIPImageProcessorPil:
    return CLIPImageProcessorPil(
        size={"shortest_edge": IMAGE_SIZE},
        crop_size={"height": IMAGE_SIZE, "width": IMAGE_SIZE},
        image_mean=list(PIXEL_MEAN),
        image_std=list(PIXEL_STD),
    )


def draw_scenes(rng: Random, count: int, grouped: bool) -> list[Scene]:
    """`count` scenes; when `grouped`, the first half are groups of four edits of one scene."""
    scenes = []
    while grouped and len(scenes) < count // 2:
        reference = random_scene(rng)
        scenes += [apply_edits(reference, random_edits(rng, reference)) for _ in range(4)]
    return scenes + [random_scene(rng) for _ in range(count - len(scenes))]


def draw_pixels(rng: Random, scenes: list[Scene]) -> torch.Tensor:
    """Pixels as the image processor would give them, shape `(len(scenes), 3, 64, 64)`."""
    pixels = torch.from_numpy(np.stack([render_array(scene, rng) for scene in scenes]))
    return (pixels.permute(0, 3, 1, 2).float() / 255 - PIXEL_MEAN[0]) / PIXEL_STD[0]


def build_optimizer(model: PreTrainedModel, lr: float) -> torch.optim.AdamW:
    """AdamW with weight decay for matrices, and none for biases and norms."""
    decayed = [p for p in model.parameters() if p.ndim >= 2]
    others = [p for p in model.parameters() if p.ndim < 2]
    groups = [{"params": decayed, "weight_decay": 0.05}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=lr, betas=(0.9, 0.98), eps=1e-6)


def learning_rate(step: int, steps: int, peak: float, warmup: int) -> float:
    if step < warmup:
        return peak * (step + 1) / warmup
    return peak * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))


@torch.no_grad()
def recall_among(model: CLIPModel, tokenizer: PreTrainedTokenizerFast, caption, count: int = 256, rounds: int = 8) -> float:
    """Text-to-image recall at 1 among `count` scenes never seen in training, mean over `rounds`."""
    hits = []
    for index in range(rounds):
        rng = seeded("clip", "held-out", index)
        scenes = [random_scene(rng) for _ in range(count)]
        text = tokenizer([caption(rng, scene) for scene in scenes], padding=True, return_tensors="pt")
        images = model.get_image_features(draw_pixels(rng, scenes)).pooler_output
        texts = model.get_text_features(text.input_ids, text.attention_mask).pooler_output
        logits = torch.nn.functional.normalize(texts, dim=-1) @ torch.nn.functional.normalize(images, dim=-1).T
        hits.append((logits.argmax(dim=-1) == torch.arange(count)).float().mean().item())
    return sum(hits) / rounds


def evaluate(model: CLIPModel, tokenizer: PreTrainedTokenizerFast) -> dict[str, float]:
    """Text-to-image recall at 1 among 256, with captions that leave things out, with complete ones, and as in training."""
    captions = {
        "plain": plain_caption,
        "full": lambda rng, scene: full_caption(scene),
        # A sixth of these are such as "no square", which many scenes fit.
        "training": random_caption,
    }
    return {
        f"recall@1_among_256_{name}_captions": round(recall_among(model, tokenizer, caption), 4)
        for name, caption in captions.items()
    }


def train(args: argparse.Namespace) -> None:
    torch.manual_seed(args.seed)
    tokenizer = build_tokenizer()
    model = CLIPModel(build_config(tokenizer))
    # SDPA's backward pass is slow on a CPU.
    model.set_attn_implementation("eager")
    optimizer = build_optimizer(model, args.lr)

    model.train()
    start, losses = time.time(), []
    bar = tqdm(range(args.steps), desc="CLIP")
    for step in bar:
        rng = seeded("clip", args.seed, step)
        scenes = draw_scenes(rng, args.batch_size, grouped=step >= 0.3 * args.steps)
        text = tokenizer([random_caption(rng, scene) for scene in scenes], padding=True, return_tensors="pt")
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, args.steps, args.lr, args.warmup_steps)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            output = model(text.input_ids, draw_pixels(rng, scenes), text.attention_mask, return_loss=True)
        optimizer.zero_grad()
        output.loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        model.logit_scale.data.clamp_(max=math.log(100))
        losses.append(output.loss.item())
        if (step + 1) % 50 == 0:
            bar.set_postfix(loss=f"{sum(losses[-50:]) / 50:.3f}")

    seconds = time.time() - start
    model.eval()
    # Half precision halves the file; the rounding costs nothing (measure both to see).
    model.half().save_pretrained(args.output)
    tokenizer.save_pretrained(args.output)
    build_image_processor().save_pretrained(args.output)
    model.float()
    record = {
        "command": "python -m m2c.data.scenes.train_clip",
        **{key: value for key, value in vars(args).items() if key != "output"},
        "final_loss": sum(losses[-50:]) / len(losses[-50:]),
        "minutes": round(seconds / 60, 1),
        **evaluate(model, tokenizer),
    }
    Path(args.output, "training.json").write_text(json.dumps(record, indent=2) + "\n")
    print(json.dumps(record, indent=2))


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", required=True, help="folder for weights, tokenizer and image processor")
    parser.add_argument("--steps", type=int, default=1400, help="optimisation steps (%(default)s)")
    parser.add_argument("--batch_size", type=int, default=256, help="scenes per step (%(default)s)")
    parser.add_argument("--lr", type=float, default=1e-3, help="peak learning rate, cosine afterwards (%(default)s)")
    parser.add_argument("--warmup_steps", type=int, default=100, help="linear warm-up (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of weights and scenes (%(default)s)")
    return parser.parse_args(argv)


if __name__ == "__main__":
    train(parse_args())
