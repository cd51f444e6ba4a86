"""The embedded default: a tiny captioner and a tiny text editor of the scenes world, and how they were trained."""

from pathlib import Path


# A BLIP of 2.6 M parameters, trained by `train_captioner.py`, with its processor.
CAPTIONER_PATH = Path(__file__).parent / "captioner"
# A Llama of 1.3 M parameters, trained by `train_editor.py`, with its tokenizer and chat template.
EDITOR_PATH = Path(__file__).parent / "editor"

__all__ = ["CAPTIONER_PATH", "EDITOR_PATH"]
