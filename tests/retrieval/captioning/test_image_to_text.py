from math import inf, nan

import pytest
import torch
from transformers.models.blip.modeling_blip import BlipVisionModel
from transformers.models.blip_2.modeling_blip_2 import Blip2VisionModel

from m2c.retrieval.captioning import CaptionSettings, load_captioner
from m2c.retrieval.chat import Failure


SHORT = CaptionSettings(max_new_tokens=8)


@pytest.fixture(scope="module", params=["blip", "blip2"])
def path(request, blip_path, blip2_path) -> str:
    return {"blip": blip_path, "blip2": blip2_path}[request.param]


@pytest.fixture
def looked_at(monkeypatch) -> list[int]:
    """How many pictures went through a vision tower, call by call."""
    counts = []
    for tower in (BlipVisionModel, Blip2VisionModel):

        def counted(self, pixel_values, *args, forward=tower.forward, **kwargs):
            counts.append(len(pixel_values))
            return forward(self, pixel_values, *args, **kwargs)

        monkeypatch.setattr(tower, "forward", counted)
    return counts


def captions(captioner, pictures: dict, numbers, attempt: int = 0) -> dict[tuple[str, int], str | Failure]:
    """By name of the picture, which serves as its digest, and number."""
    names = list(pictures)
    groups = list(captioner.captions([pictures[name] for name in names], names, numbers, attempt))
    replies = [(names[row], number, reply) for group in groups for row, number, reply in group]
    found = {(name, number): reply for name, number, reply in replies}
    assert len(found) == len(replies)
    return found


@pytest.fixture
def pictures(picture):
    return {name: picture(seed) for seed, name in enumerate("abcde")}


def test_a_caption_depends_on_neither_the_batch_nor_how_many_are_asked_for(path, pictures):
    captioner = load_captioner(path, SHORT)
    together = captions(captioner, pictures, range(15))
    assert len(together) == 75 and len(set(together.values())) > 50
    alone = {}
    for name, picture in reversed(pictures.items()):
        for numbers in ([0, 1, 2, 3, 4], [14, 9], [5, 6, 7, 8, 10, 11, 12, 13]):
            alone |= captions(captioner, {name: picture}, numbers)
    assert alone == together
    assert captions(load_captioner(path, SHORT), pictures, range(5)) == {
        (name, number): text for (name, number), text in together.items() if number < 5
    }


def test_the_vision_tower_looks_once_at_each_picture(path, pictures, looked_at):
    captions(load_captioner(path, SHORT), pictures, range(15))
    assert looked_at == [5]


def test_the_picture_counts_and_not_only_its_noise(path, pictures, picture):
    captioner = load_captioner(path, SHORT)
    other = captions(captioner, {"a": picture(77)}, range(8))
    assert other != captions(captioner, {"a": pictures["a"]}, range(8))


def test_every_setting_makes_other_captions_and_another_identity(path, pictures):
    few = {"a": pictures["a"]}
    changes = [{}, {"seed": 1}, {"temperature": 0.3}, {"top_p": 0.2}, {"prompt": "a"}, {"max_new_tokens": 3}]
    captioners = [load_captioner(path, CaptionSettings(**{"max_new_tokens": 8, **change})) for change in changes]
    assert len({str(captions(captioner, few, range(6))) for captioner in captioners}) == 6
    assert len({str(captioner.identity) for captioner in captioners}) == 6


def test_asked_again_it_draws_anew(path, pictures):
    captioner = load_captioner(path, SHORT)
    first, second = (captions(captioner, pictures, range(3), attempt) for attempt in (0, 1))
    assert sum(first[key] != second[key] for key in first) > 10


def test_at_temperature_0_it_is_the_greedy_caption_of_generate(path, pictures):
    captioner = load_captioner(path, CaptionSettings(temperature=0.0, max_new_tokens=8))
    inputs = captioner.processor(images=[pictures["b"]], return_tensors="pt")
    tokens = captioner.model.generate(**inputs, max_new_tokens=8, do_sample=False)
    (expected,) = captioner.processor.batch_decode(tokens, skip_special_tokens=True)
    assert set(captions(captioner, pictures, range(2))[key] for key in (("b", 0), ("b", 1))) == {expected.strip()}


def test_the_prompt_is_how_captions_begin_and_is_left_out(path, pictures):
    prompt = "a photo of"
    captioner = load_captioner(path, CaptionSettings(temperature=0.0, max_new_tokens=4, prompt=prompt))
    inputs = captioner.processor(images=[pictures["b"]], text=[prompt], return_tensors="pt")
    tokens = captioner.model.generate(**inputs, max_new_tokens=4, do_sample=False)
    (whole,) = captioner.processor.batch_decode(tokens, skip_special_tokens=True)
    assert whole.strip().startswith(prompt)
    assert captions(captioner, {"b": pictures["b"]}, [0])["b", 0] == whole.strip().removeprefix(prompt).strip()


def test_the_identity_tells_model_and_settings_and_no_path(path):
    identity = load_captioner(path, SHORT).identity
    name = path.rsplit("/")[-1]
    assert {**identity, "revision": len(identity["revision"])} == {
        "kind": "transformers",
        "model": name,
        "revision": 64,
        "temperature": 1.0,
        "top_p": 0.9,
        "seed": 0,
        "prompt": None,
        "max_new_tokens": 8,
    }


def test_a_caption_of_nothing_is_a_failure(blip_path, pictures):
    captioner = load_captioner(blip_path, SHORT)
    with torch.no_grad():
        bias = captioner.model.text_decoder.cls.predictions.bias
        bias[3] = 1e4  # the token that ends a text
    assert set(captions(captioner, pictures, range(2)).values()) == {Failure("an empty caption")}


def test_instructblip_writes_with_a_prompt_and_is_refused_without(instructblip_path, pictures):
    with pytest.raises(ValueError, match=r"/instructblip' needs --prompt .*, such as 'A short"):
        load_captioner(instructblip_path, SHORT)
    captioner = load_captioner(instructblip_path, CaptionSettings(max_new_tokens=8, prompt="a photo"))
    together = captions(captioner, pictures, range(3))
    assert len(set(together.values())) > 10
    assert captions(captioner, {"c": pictures["c"]}, [2])["c", 2] == together["c", 2]


@pytest.mark.parametrize(
    "settings",
    [
        {"temperature": -1.0},
        {"temperature": nan},
        {"temperature": inf},
        {"top_p": 0.0},
        {"top_p": 1.5},
        {"top_p": nan},
        {"max_new_tokens": 0},
    ],
)
def test_settings_out_of_range_are_named(settings):
    with pytest.raises(ValueError, match=next(iter(settings)) + ".*not"):
        CaptionSettings(**settings)
