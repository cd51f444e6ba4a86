"""The optimisation that the captioner and the editor of scenes share."""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path

import torch
from tqdm.auto import tqdm
from transformers import PreTrainedModel

from m2c.data.scenes.train_clip import build_optimizer, learning_rate


def add_arguments(parser: argparse.ArgumentParser, steps: int, batch_size: int, lr: float) -> None:
    parser.add_argument("--output", required=True, help="folder for weights, tokenizer and what else belongs to the model")
    parser.add_argument("--steps", type=int, default=steps, help="optimisation steps (%(default)s)")
    parser.add_argument("--batch_size", type=int, default=batch_size, help="examples per step (%(default)s)")
    parser.add_argument("--lr", type=float, default=lr, help="peak learning rate, cosine afterwards (%(default)s)")
    parser.add_argument("--warmup_steps", type=int, default=100, help="linear warm-up (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of weights and scenes (%(default)s)")


def fit(model: PreTrainedModel, loss_at: Callable[[int], torch.Tensor], args: argparse.Namespace) -> dict[str, float]:
    """Minimises `loss_at(step)`, called under bfloat16 autocast. Returns the last loss and the minutes it took."""
    optimizer = build_optimizer(model, args.lr)

    model.train()
    start, losses = time.time(), []
    bar = tqdm(range(args.steps), desc=type(model).__name__, mininterval=5)
    for step in bar:
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, args.steps, args.lr, args.warmup_steps)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = loss_at(step)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.item())
        if (step + 1) % 50 == 0:
            bar.set_postfix(loss=f"{sum(losses[-50:]) / 50:.4f}")
    model.eval()
    last = losses[-50:]
    return {"final_loss": round(sum(last) / len(last), 4), "minutes": round((time.time() - start) / 60, 1)}


def write_record(command: str, args: argparse.Namespace, figures: dict) -> None:
    """`training.json` beside the weights: the command, its settings, and what was measured."""
    settings = {key: value for key, value in vars(args).items() if key != "output"}
    record = {"command": f"python -m {command}", **settings, **figures}
    Path(args.output, "training.json").write_text(json.dumps(record, indent=2) + "\n")
    print(json.dumps(record, indent=2))
