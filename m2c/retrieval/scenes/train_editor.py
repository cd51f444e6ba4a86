"""Trains the tiny text editor of the scenes world from scratch, and writes it as a chat model that transformers loads.

    python -m m2c.retrieval.scenes.train_editor --output editor

The checkpoint in `m2c/retrieval/scenes/editor` was made by this command with its defaults. It is a Llama that reads and writes
whole words. Conversations are drawn on the fly: what it is asked is rendered by the prompts and the chat template that ask it
later, what it should reply comes from [`m2c.retrieval.scenes.edited_captions`].
"""

import argparse
from dataclasses import dataclass
from itertools import chain
from random import Random

import torch
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from m2c.data.scenes.edits import random_edits
from m2c.data.scenes.language import modification_text, plain_wording, vocabulary
from m2c.data.scenes.world import OBJECT_COUNTS, Scene, random_scene, seeded
from m2c.retrieval.chat import load_chat
from m2c.retrieval.editing import Editor
from m2c.retrieval.editing.prompts import EditRequest, Prompt
from m2c.retrieval.text_store import ADDED_OBJECTS, EDITED_CAPTION

from .edited_captions import NOTHING, added_objects, edited, forgetful, joined, mistaken
from .fitting import add_arguments, fit, write_record


SPECIAL_TOKENS = ("<pad>", "<unk>", "<user>", "<assistant>", "<end>")
CHAT_TEMPLATE = (
    "{% for message in messages %}<{{ message['role'] }}>{{ message['content'] }}<end>{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)
CONTEXT = 1024

# Of the conversations about one caption, and about several.
SHARE_ADDED_OBJECTS, SHARE_ADDED_OBJECTS_OF_SEVERAL = 0.15, 0.4
# Of the captions; those of a real captioner are no better.
SHARE_MISTAKEN = 0.1
SHARE_FORGETFUL = 0.03
# Of the training; until then scenes have fewer objects, and one caption, which is right.
EASY_UNTIL = 0.3
# How many captions are joined, and how often.
CAPTION_COUNTS = {1: 0.8, 2: 0.05, 3: 0.05, 5: 0.06, 15: 0.04}


@dataclass(frozen=True)
class Conversation:
    """What the editor is asked, and what it should reply."""

    kind: str
    request: EditRequest
    reply: str


def draw_conversation(rng: Random, scene: Scene, kind: str, count: int, faults: bool) -> Conversation:
    """A conversation about `count` captions of the scene; with `faults`, some of the captions are wrong."""
    edits = random_edits(rng, scene)
    true = [plain_wording(rng, scene) for _ in range(count)]
    if faults:
        true = [forgetful(rng, w) if len(w.objects) == 3 and rng.random() < SHARE_FORGETFUL else w for w in true]
    written = [mistaken(rng, w) if faults and rng.random() < SHARE_MISTAKEN else w for w in true]
    request = EditRequest(tuple(w.text for w in written), modification_text(rng, scene, edits))
    # After a mistake the truth is still asked for: what the others say, or what the modification gives away, can mend it.
    reply = edited(joined(true), scene, edits).text if kind == EDITED_CAPTION else added_objects(scene, edits)
    return Conversation(kind, request, reply)


def build_tokenizer() -> PreTrainedTokenizerFast:
    """Word-level tokenizer over the words of the scenes world and of the prompts; punctuation is ignored."""
    asked = [Prompt("scenes", kind).messages(EditRequest(("",), ""))[-1]["content"] for kind in (EDITED_CAPTION, ADDED_OBJECTS)]
    prompt_words = " ".join(asked).replace(":", " ").split()
    words = [*SPECIAL_TOKENS, *sorted({*vocabulary(), *prompt_words, NOTHING})]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFKC(), normalizers.Lowercase(), normalizers.Replace(Regex(r"[^\w\s]"), " ")]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        unk_token="<unk>",
        eos_token="<end>",
        extra_special_tokens=["<user>", "<assistant>"],
        padding_side="left",
        model_max_length=CONTEXT,
    )
    fast.chat_template = CHAT_TEMPLATE
    return fast


def build_config(tokenizer: PreTrainedTokenizerFast) -> LlamaConfig:
    return LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=128,
        intermediate_size=384,
        num_hidden_layers=6,
        num_attention_heads=4,
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )


def draw_batch(rng: Random, size: int, progress: float) -> list[Conversation]:
    """Conversations about equally many captions of scenes with equally many objects: they are about as long as each other.

    In the beginning scenes have one object, then up to two. Which attributes belong to which object is hard to find out for who
    has not learned yet to copy and to change one.

    Args:
        rng: draws them.
        size: conversations if each is about one caption; the more captions, the fewer conversations.
        progress: share of the training that is over.
    """
    easy = progress < EASY_UNTIL
    objects = rng.choice([n for n in OBJECT_COUNTS if n <= (1 if progress < EASY_UNTIL / 2 else 2 if easy else 3)])
    count = 1 if easy else rng.choices(tuple(CAPTION_COUNTS), tuple(CAPTION_COUNTS.values()))[0]
    share = SHARE_ADDED_OBJECTS if count == 1 else SHARE_ADDED_OBJECTS_OF_SEVERAL
    kinds = [ADDED_OBJECTS if rng.random() < share else EDITED_CAPTION for _ in range(-(-size // count))]
    return [draw_conversation(rng, _scene_of(rng, objects), kind, count, faults=not easy) for kind in kinds]


def _scene_of(rng: Random, objects: int) -> Scene:
    while True:
        scene = random_scene(rng)
        if len(scene.objects) == objects:
            return scene


def tokenize(tokenizer: PreTrainedTokenizerFast, batch: list[Conversation]) -> dict[str, torch.Tensor]:
    """`input_ids`, `attention_mask` and `labels` of shape `(len(batch), length)`; only replies have labels."""
    asked = [Prompt("scenes", item.kind).messages(item.request) for item in batch]
    whole = [[*turns, {"role": "assistant", "content": item.reply}] for turns, item in zip(asked, batch)]
    prompts = tokenizer.apply_chat_template(asked, add_generation_prompt=True, tokenize=False)
    lengths = torch.tensor([len(ids) for ids in tokenizer(prompts).input_ids])
    inputs = tokenizer(
        tokenizer.apply_chat_template(whole, tokenize=False), padding=True, padding_side="right", return_tensors="pt"
    )
    ids, mask = inputs.input_ids, inputs.attention_mask
    unlabelled = (torch.arange(ids.shape[1]) < lengths[:, None]) | (mask == 0)
    return {"input_ids": ids, "attention_mask": mask, "labels": ids.masked_fill(unlabelled, -100)}


def evaluate(editor: Editor, count: int = 512) -> dict[str, float]:
    """Share of exactly right replies about scenes never seen in training, whose captions are right."""
    cases = {
        "exact_edits_of_1_caption": (EDITED_CAPTION, 1),
        "exact_edits_of_5_captions": (EDITED_CAPTION, 5),
        "exact_edits_of_15_captions": (EDITED_CAPTION, 15),
        "exact_added_objects": (ADDED_OBJECTS, 1),
    }
    figures = {}
    for name, (kind, captions) in cases.items():
        rng = seeded("editor", "held-out", name)
        items = [draw_conversation(rng, random_scene(rng), kind, captions, faults=False) for _ in range(count)]
        requests = [editor.ask(editor.prompt(kind).messages(item.request)) for item in items]
        replies = chain.from_iterable(editor.chat.replies(requests))
        right = sum(editor.read(reply, kind) == editor.read(items[position].reply, kind) for position, reply in replies)
        figures[name] = round(right / count, 4)
    return figures


def train(args: argparse.Namespace) -> None:
    torch.manual_seed(args.seed)
    tokenizer = build_tokenizer()
    model = LlamaForCausalLM(build_config(tokenizer))
    # SDPA's backward pass is slow on a CPU.
    model.set_attn_implementation("eager")

    def loss_at(step: int) -> torch.Tensor:
        batch = draw_batch(seeded("editor", args.seed, step), args.batch_size, step / args.steps)
        return model(**tokenize(tokenizer, batch)).loss

    figures = fit(model, loss_at, args)
    # Half precision halves the file; the rounding costs nothing (measure both to see).
    model.half().save_pretrained(args.output)
    tokenizer.save_pretrained(args.output)
    editor = Editor(load_chat(args.output), "scenes")
    prompts = {kind: editor.prompt(kind).digest for kind in (EDITED_CAPTION, ADDED_OBJECTS)}
    write_record("m2c.retrieval.scenes.train_editor", args, {**figures, **evaluate(editor), "prompts": prompts})


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser, steps=3400, batch_size=64, lr=2e-3)
    return parser.parse_args(argv)


if __name__ == "__main__":
    train(parse_args())
