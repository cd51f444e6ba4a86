#!/usr/bin/env python
r"""Makes a composed image retriever from a CLIP, in two stages. Commands to copy:

Try it: stage 1, then stage 2, on the scenes that ship with the package (a few minutes on two cores).

    python train_accelerate.py --output_dir stage1
    python train_accelerate.py --stage 2 --model stage1 --output_dir stage2 --reference_negatives

Stage 1 (mapping) on image-caption pairs of the Hub or of a folder, one GPU, then eight:

    python train_accelerate.py --model openai/clip-vit-large-patch14 --dataset my/pairs --output_dir stage1 \
        --mixed_precision bf16 --num_workers 8
    # two processes with half the batch take the same steps as one: negatives, dropout and batch norm see the global batch
    accelerate launch --num_processes 8 train_accelerate.py --model openai/clip-vit-large-patch14 --dataset my/pairs \
        --batch_size 128 --output_dir stage1 --mixed_precision bf16 --num_workers 8

Stage 2 (composing) on triplets:

    python train_accelerate.py --stage 2 --model stage1 --dataset my/triplets --output_dir stage2 \
        --reference_column reference --target_column target --modification_column modification

Go on after an interruption, from a checkpoint that --checkpoint_steps wrote:

    python train_accelerate.py --output_dir stage1 --resume stage1/checkpoints/step_000100

Installed with the package, the same script is the command `m2c train`.
"""

import argparse
import sys
from pathlib import Path

from accelerate import PartialState
from safetensors import SafetensorError
from transformers import HfArgumentParser

from hub_cards import write_model_card
from m2c.training import TrainingConfig, train


class _HelpFormatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Shows defaults where there is one, and the commands above as they are."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        return action.help if action.default is None else super()._get_help_string(action)


def parse_args(argv: list[str] | None = None) -> TrainingConfig:
    parser = HfArgumentParser(TrainingConfig, description=__doc__, prog="train_accelerate.py", formatter_class=_HelpFormatter)
    (config,) = parser.parse_args_into_dataclasses(argv)
    return config


def main(argv: list[str] | None = None) -> int:
    """Runs the command line and returns the exit code."""
    config = None
    try:
        config = parse_args(argv)
        train(config)
        if PartialState().is_main_process:
            write_model_card(config.output_dir)
            print(f"done: AutoModel.from_pretrained({config.output_dir!r}, trust_remote_code=True) loads it")
    except (ValueError, OSError, SafetensorError) as error:
        print(f"error: {_own_words(error)}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"interrupted; {_what_is_left(config)}", file=sys.stderr)
        return 130
    return 0


def _own_words(error: Exception) -> str:
    message = str(error).strip()
    # From a worker that loads images an error comes wrapped in that worker's traceback; its own words are the last line.
    from_worker = " in DataLoader worker process " in message.splitlines()[0] if message else False
    return message.splitlines()[-1].removeprefix("ValueError: ") if from_worker else message


def _what_is_left(config: TrainingConfig | None) -> str:
    checkpoints = sorted(Path(config.output_dir, "checkpoints").glob("step_??????")) if config else []
    if not checkpoints:
        return "no checkpoint was written (see --checkpoint_steps), so there is nothing to resume"
    return f"go on with --resume {checkpoints[-1]}"


if __name__ == "__main__":
    sys.exit(main())
