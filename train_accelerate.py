#!/usr/bin/env python
r"""Makes a composed image retriever from a CLIP, in two stages. Commands to copy:

Try it: stage 1, then stage 2, on the scenes that ship with the package (a few minutes on two cores).

    python train_accelerate.py --output_dir stage1
    python train_accelerate.py --stage 2 --model stage1 --output_dir stage2 --reference_negatives

Stage 1 (mapping) on image-caption pairs of the Hub or of a folder, one GPU, then eight:

    python train_accelerate.py --model openai/clip-vit-large-patch14 --dataset my/pairs --output_dir stage1 \
        --mixed_precision bf16 --num_workers 8
    # two processes with half the batch take the same steps as one, except on streams: negatives, dropout and batch norm see
    # the global batch
    accelerate launch --num_processes 8 train_accelerate.py --model openai/clip-vit-large-patch14 --dataset my/pairs \
        --batch_size 128 --output_dir stage1 --mixed_precision bf16 --num_workers 8

Stage 1 on shards that are read as a stream, without a copy or an index (at least as many shards as processes times workers):

    python train_accelerate.py --model openai/clip-vit-large-patch14 --dataset 'shards/*.tar' --streaming --image_column jpg \
        --caption_column txt --output_dir stage1 --mixed_precision bf16 --num_workers 8

Stage 1 without any image (LinCIR), on a column of captions, or on files with a caption in each line:

    python train_accelerate.py --objective text_only --model openai/clip-vit-large-patch14 --output_dir stage1 \
        --dataset 'captions/*.txt' --caption_column text --mixed_precision bf16

Stage 2 (composing) on triplets:

    python train_accelerate.py --stage 2 --model stage1 --dataset my/triplets --output_dir stage2 \
        --reference_column reference --target_column target --modification_column modification

On a cluster, add --resume from the start: the command goes on from the newest checkpoint in --output_dir, whatever ended the
run before, and begins if there is none. Asked to end (SIGTERM, Ctrl-C), a run writes a checkpoint first.

    accelerate launch --num_processes 8 train_accelerate.py --model openai/clip-vit-large-patch14 --dataset my/pairs \
        --batch_size 128 --output_dir stage1 --mixed_precision bf16 --num_workers 8 --checkpoint_steps 100 --resume

Installed with the package, the same script is the command `m2c train`.
"""

import argparse
import re
import sys
from pathlib import Path

from accelerate import PartialState
from safetensors import SafetensorError
from transformers import HfArgumentParser

from hub_cards import write_card
from m2c.training import TrainingConfig, train
from m2c.training.processes.interruption import Interrupted
from m2c.training.rehearsal import rehearse


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
    try:
        config = parse_args(argv)
        if config.dry_run:
            rehearse(config, lambda line: PartialState().print(line))  # which is not to be asked before there is an Accelerator
            return 0
        train(config)
        if PartialState().is_main_process:
            if not Path(config.output_dir, "README.md").exists():  # of a finished run it may have been edited since
                write_card(config.output_dir)
            print(f"done: AutoModel.from_pretrained({config.output_dir!r}, trust_remote_code=True) loads it")
    except (ValueError, OSError, SafetensorError) as error:
        print(f"error: {_own_words(error)}", file=sys.stderr)
        return 1
    except Interrupted as interruption:
        if PartialState().is_main_process:
            print(interruption, file=sys.stderr)
        return interruption.exit_code
    except KeyboardInterrupt:
        print("interrupted; go on with --resume", file=sys.stderr)
        return 130
    return 0


def _own_words(error: Exception) -> str:
    message = str(error).strip()
    # From a worker that loads images an error comes wrapped in that worker's traceback; its own words are in the last line.
    caught = re.match(r"Caught (\w+) in DataLoader worker process ", message)
    if caught is None:
        return message
    last = message.splitlines()[-1]
    return last.partition(f"{caught[1]}: ")[2] or last


if __name__ == "__main__":
    sys.exit(main())
