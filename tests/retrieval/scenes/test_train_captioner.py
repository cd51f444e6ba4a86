import json

import pytest
import torch
from transformers import BlipForConditionalGeneration, CLIPModel, CLIPVisionModel

from m2c.data.scenes import CLIP_PATH
from m2c.data.scenes.language import plain_caption
from m2c.data.scenes.rendering import render
from m2c.data.scenes.train_clip import build_tokenizer, draw_pixels
from m2c.data.scenes.world import random_scene, seeded
from m2c.retrieval.captioning import CaptionSettings, load_captioner
from m2c.retrieval.scenes import CAPTIONER_PATH
from m2c.retrieval.scenes.train_captioner import (
    build_config,
    build_processor,
    caption_loss,
    evaluate,
    parse_args,
    start_from_clip,
)


@pytest.fixture(scope="module")
def clip() -> CLIPVisionModel:
    return CLIPModel.from_pretrained(CLIP_PATH, dtype=torch.float32).vision_model.eval()


@pytest.fixture
def untrained(clip) -> BlipForConditionalGeneration:
    torch.manual_seed(0)
    return BlipForConditionalGeneration(build_config(build_tokenizer(), clip.config)).eval()


def pixels_of(*key, count: int) -> torch.Tensor:
    rng = seeded(*key)
    return draw_pixels(rng, [random_scene(rng) for _ in range(count)])


@torch.no_grad()
def test_it_starts_by_seeing_what_the_clip_sees(untrained, clip):
    """BLIP's tower lacks one normalisation, so what comes out is nearly the same, and only for pictures as were measured on."""
    start_from_clip(untrained.vision_model, clip, pixels_of("start", count=64))
    pixels = pixels_of("others", count=16)
    wanted = clip.post_layernorm(clip(pixels).last_hidden_state)
    seen = untrained.vision_model(pixels).last_hidden_state
    likeness = torch.nn.functional.cosine_similarity(seen, wanted, dim=-1)
    strangers = torch.nn.functional.cosine_similarity(seen, wanted.roll(1, dims=0), dim=-1)
    assert likeness.mean() > 0.9 and likeness.mean() > strangers.mean() + 0.2


def test_the_loss_is_that_of_the_class_over_all_captions_of_each_picture(untrained):
    """BLIP's own forward takes one caption for a picture; the words of all count alike."""
    tokenizer, rng = build_tokenizer(), seeded("loss")
    scenes = [random_scene(rng) for _ in range(3)]
    captions = [[plain_caption(rng, scene) for _ in range(2)] for scene in scenes]
    pixels = draw_pixels(rng, scenes)
    flat = [caption for group in captions for caption in group]
    text = tokenizer(flat, padding=True, return_tensors="pt")
    labels = text.input_ids.masked_fill(text.attention_mask == 0, -100)
    with torch.no_grad():
        whole = untrained(pixels.repeat_interleave(2, dim=0), text.input_ids, text.attention_mask, labels).loss
        assert torch.allclose(caption_loss(untrained, tokenizer, pixels, captions), whole, atol=1e-5)


def test_the_processor_makes_the_pixels_of_training():
    rng = seeded("pixels")
    scene = random_scene(rng)
    pixels = build_processor(build_tokenizer())(images=render(scene, seeded(1)), return_tensors="pt").pixel_values
    assert torch.allclose(pixels, draw_pixels(seeded(1), [scene]), atol=1e-6)


def test_the_shipped_captioner():
    figures = evaluate(load_captioner("scenes", CaptionSettings(temperature=0, max_new_tokens=40)), count=48)
    assert figures["right_attributes"] > 0.88 and figures["mentioned_objects"] > 0.9


def test_several_captions_say_more_than_one():
    captioner = load_captioner("scenes", CaptionSettings(max_new_tokens=40))
    scene = random_scene(seeded("several"))
    (replies,) = captioner.captions([render(scene, seeded(2))], ["digest"], range(6))
    assert len({caption for _, _, caption in replies}) >= 4


def settings_of(*arguments: str) -> dict:
    settings = vars(parse_args(["--output", "unused", *arguments]))
    return {name: value for name, value in settings.items() if name not in ("output", "start")}


def test_the_record_of_the_shipped_captioner_names_the_settings_of_both_commands():
    record = json.loads((CAPTIONER_PATH / "training.json").read_text())
    second = settings_of("--start", "first", "--lr", "7e-4", "--seed", "1")
    assert {name: record[name] for name in second} == second
    assert {name: record["start"][name] for name in settings_of()} == settings_of()
