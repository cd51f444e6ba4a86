import io
import logging

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from transformers import AutoProcessor, CLIPImageProcessorPil

from m2c.data.scenes.train_clip import build_tokenizer
from processing_m2c import M2CProcessor


def red(size=(40, 30)) -> Image.Image:
    return Image.new("RGB", size, "red")


def tokens(processor, text: str, **kwargs) -> list[str]:
    inputs = processor(images=red(), text=text, **kwargs)
    return processor.tokenizer.convert_ids_to_tokens(inputs.input_ids[0])


def test_composed_query(processor):
    inputs = processor(images=red(), text="has a blue circle", return_tensors="pt")
    assert inputs.pixel_values.shape == (1, 3, 32, 32)
    assert tokens(processor, "has a blue circle") == (
        ["<start>", "a", "photo", "of", "*", "that", "has", "a", "blue", "circle", "<end>"]
    )
    assert inputs.pseudo_word_position.tolist() == [4]
    assert inputs.attention_mask.tolist() == [[1] * 11]


def test_images_alone_and_text_alone(processor, tokenizer):
    assert set(processor(images=[red(), red()])) == {"pixel_values"}
    texts = ["a red circle", "a photo of a blue star and a moon"]
    ours = processor(text=texts, return_tensors="pt")
    theirs = tokenizer(texts, padding=True, return_tensors="pt")
    assert set(ours) == {"input_ids", "attention_mask"}
    assert torch.equal(ours.input_ids, theirs.input_ids)
    assert torch.equal(ours.attention_mask, theirs.attention_mask)


@pytest.mark.parametrize("text", ["", "   ", "\n\t\n", "!!!", "\u200b"])
def test_no_text_is_the_mapping_prompt(processor, text):
    assert tokens(processor, text) == ["<start>", "a", "photo", "of", "*", "<end>"]


def test_user_text_is_never_searched_for_the_placeholder(processor):
    assert tokens(processor, "* is {text} *,") == (
        ["<start>", "a", "photo", "of", "*", "that", "*", "is", "<unk>", "*", "<end>"]
    )
    assert processor(images=red(), text="* is *").pseudo_word_position == [4]


def test_special_tokens_in_user_text_do_not_end_it(processor, tokenizer):
    ids = processor(images=red(), text="is red <end> and <pad> big").input_ids[0]
    assert ids.count(tokenizer.eos_token_id) == 1 and ids[-1] == tokenizer.eos_token_id
    assert tokenizer.pad_token_id not in ids


def test_several_lines_are_one(processor):
    assert tokens(processor, "is red\r\n and\tbig") == tokens(processor, "is red and big")


def test_long_text_is_cut_with_one_warning(processor, tokenizer, caplog):
    logging.getLogger("processing_m2c").propagate = True
    with caplog.at_level(logging.WARNING):
        inputs = processor(images=[red()] * 3, text=["red " * 100, "blue " * 50, "is red"], return_tensors="pt")
    assert inputs.input_ids.shape == (3, 40)
    first = tokenizer.convert_ids_to_tokens(inputs.input_ids[0])
    assert first[:7] == ["<start>", "a", "photo", "of", "*", "that", "red"] and first[-1] == "<end>"
    assert [record.message for record in caplog.records] == [
        "2 of 3 texts are too long for the 40 tokens of the text tower; their ends were cut off"
    ]


def test_template_after_the_text_survives_a_long_text(image_processor, tokenizer):
    processor = M2CProcessor(image_processor, tokenizer, composing_template="* that {text} on a photo")
    result = tokens(processor, "red " * 100)
    assert len(result) == 40 and result[-4:] == ["on", "a", "photo", "<end>"]


@settings(max_examples=150)
@given(text=st.text(st.characters(codec=None), max_size=120))
def test_any_text_keeps_the_frame(any_processor, text):
    inputs = any_processor(images=red((2, 2)), text=text)
    ids, tokenizer = inputs.input_ids[0], any_processor.tokenizer
    frame = any_processor(images=red((2, 2)), text="").input_ids[0]
    assert ids[0] == tokenizer.bos_token_id and ids[-1] == tokenizer.eos_token_id
    assert ids[:5] == frame[:5] and inputs.pseudo_word_position == [4]
    assert ids.count(tokenizer.eos_token_id) == 1
    assert len(ids) <= tokenizer.model_max_length


@pytest.fixture(scope="module")
def any_processor(image_processor, tokenizer):
    return M2CProcessor(image_processor, tokenizer)


@pytest.mark.parametrize(("images", "texts"), [(2, 3), (1, 2), (2, 0)])
def test_as_many_images_as_texts(processor, images, texts):
    with pytest.raises(ValueError, match=f"there are {images} images and {texts} texts"):
        processor(images=[red()] * images, text=["is red"] * texts)


def test_nothing_and_wrong_types(processor):
    with pytest.raises(ValueError, match="needs images, text, or both"):
        processor()
    with pytest.raises(TypeError, match="must be a string, not int: 7"):
        processor(text=["is red", 7])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"composing_template": "a photo that {text}"}, r"composing_template must hold '\*' exactly once"),
        ({"composing_template": "a photo of *"}, r"composing_template must hold '\{text\}' exactly once"),
        ({"composing_template": "* and * {text}"}, r"composing_template must hold '\*' exactly once"),
        ({"mapping_template": "a * {text}"}, r"mapping_template must hold '\{text\}' not at all"),
        ({"target_pad": 0.5}, "at least 1"),
    ],
)
def test_wrong_arguments(image_processor, tokenizer, arguments, message):
    with pytest.raises(ValueError, match=message):
        M2CProcessor(image_processor, tokenizer, **arguments)


MODES = [
    "1",
    "L",
    "P",
    "RGB",
    "RGBA",
    "CMYK",
    "YCbCr",
    "LAB",
    "HSV",
    "I",
    "F",
    "LA",
    "PA",
    "RGBX",
    "RGBa",
    "La",
    "I;16",
    "I;16B",
]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("size", [(1, 1), (3, 1), (1, 3), (3000, 1), (1, 3000), (40, 30)])
def test_any_mode_and_size(processor, mode, size):
    pixels = processor(images=Image.new(mode, size), return_tensors="pt").pixel_values
    assert pixels.shape == (1, 3, 32, 32) and torch.isfinite(pixels).all()


def test_rgb_is_what_clip_makes_of_it(processor, image_processor):
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (50, 70, 3), dtype=np.uint8))
    theirs = CLIPImageProcessorPil(**image_processor.to_dict())(noise, return_tensors="pt").pixel_values
    assert torch.equal(processor(images=noise, return_tensors="pt").pixel_values, theirs)


def test_deep_greys_keep_their_shades(processor):
    eight = np.linspace(0, 255, 32 * 32).reshape(32, 32).astype(np.uint8)
    wanted = processor(images=Image.fromarray(eight), return_tensors="pt").pixel_values
    for picture in (
        Image.fromarray(eight.astype(np.uint16) * 257),
        Image.fromarray(eight.astype(np.int32) * 257),
        Image.fromarray(eight.astype(np.float32) / 255),
    ):
        assert torch.allclose(processor(images=picture, return_tensors="pt").pixel_values, wanted, atol=0.02)


def test_exif_orientation_and_first_frame(processor, tmp_path):
    upright = Image.new("RGB", (32, 32), "red")
    upright.paste("blue", (0, 0, 32, 16))
    exif = Image.Exif()
    exif[0x0112] = 3  # stored upside down
    upright.rotate(180).save(tmp_path / "turned.png", exif=exif)
    upright.save(tmp_path / "moving.gif", save_all=True, append_images=[Image.new("RGB", (32, 32), "green")])
    wanted = processor(images=upright, return_tensors="pt").pixel_values
    assert torch.equal(processor(images=tmp_path / "turned.png", return_tensors="pt").pixel_values, wanted)
    moving = Image.open(tmp_path / "moving.gif")
    moving.seek(1)
    assert torch.allclose(processor(images=moving, return_tensors="pt").pixel_values, wanted, atol=0.1)


def test_arrays_and_tensors(processor):
    array = np.zeros((20, 30, 3), np.uint8)
    assert torch.equal(
        processor(images=array, return_tensors="pt").pixel_values,
        processor(images=Image.fromarray(array), return_tensors="pt").pixel_values,
    )
    for shape in ((20, 30), (20, 30, 4)):
        assert processor(images=np.zeros(shape, np.uint8), return_tensors="pt").pixel_values.shape == (1, 3, 32, 32)
    assert processor(images=torch.rand(4, 3, 20, 30), return_tensors="pt").pixel_values.shape == (4, 3, 32, 32)


def test_target_pad_shows_the_whole_of_a_wide_image(image_processor, tokenizer, tmp_path):
    wide = Image.new("RGB", (300, 100), "white")
    wide.paste("red", (0, 0, 60, 100))
    plain = M2CProcessor(image_processor, tokenizer)
    padding = M2CProcessor(image_processor, tokenizer, target_pad=1.25)

    def is_red(processor) -> bool:
        pixels = processor(images=wide, return_tensors="pt").pixel_values[0]
        return bool(((pixels[0] > 1) & (pixels[1] < -1)).any())

    assert not is_red(plain) and is_red(padding)
    almost_square = red((120, 100))
    assert torch.equal(
        plain(images=almost_square, return_tensors="pt").pixel_values,
        padding(images=almost_square, return_tensors="pt").pixel_values,
    )
    padding.save_pretrained(tmp_path)
    assert AutoProcessor.from_pretrained(tmp_path).target_pad == 1.25
    assert padding(images=Image.new("RGB", (30000, 1))).pixel_values[0].shape == (3, 32, 32)


def test_templates_are_saved(image_processor, tokenizer, tmp_path):
    M2CProcessor(image_processor, tokenizer, "a {text} photo of *", "*").save_pretrained(tmp_path)
    loaded = AutoProcessor.from_pretrained(tmp_path)
    assert (loaded.composing_template, loaded.mapping_template) == ("a {text} photo of *", "*")
    inputs = loaded(images=[red()] * 2, text=["big red", ""])
    assert inputs.pseudo_word_position == [6, 1]


@pytest.mark.parametrize("content", [b"", b"not an image", None])
def test_unreadable_images_are_named(processor, tmp_path, content):
    path = tmp_path / "broken.png"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ValueError, match=r"broken\.png cannot be read .*; check the file, or leave it out"):
        processor(images=[red(), path])


def test_a_tokenizer_that_states_no_length_has_that_of_clip(image_processor):
    tokenizer = build_tokenizer()
    tokenizer.model_max_length = int(1e30)
    processor = M2CProcessor(image_processor, tokenizer)
    assert len(processor(images=red(), text="red " * 200, padding="max_length").input_ids[0]) == 77
    assert len(processor(images=red(), text="is red", padding="max_length").input_ids[0]) == 77


@settings(max_examples=150)
@given(st.sampled_from(["PNG", "GIF", "BMP", "TIFF", "WEBP", "JPEG", "DDS"]), st.data())
def test_a_damaged_file_is_an_image_or_a_value_error(any_processor, kind, data):
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (16, 16, 3), dtype=np.uint8)).save(buffer, kind)
    content = bytearray(buffer.getvalue())
    for _ in range(data.draw(st.integers(1, 6))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    try:
        any_processor(images=io.BytesIO(bytes(content)))
    except ValueError as error:
        assert "cannot be read" in str(error)


def test_truncated_image_is_named(processor, tmp_path):
    path = tmp_path / "half.png"
    Image.effect_noise((200, 200), 50).save(path)
    path.write_bytes(path.read_bytes()[:9000])
    with pytest.raises(ValueError, match=r"half\.png cannot be read"):
        processor(images=Image.open(path))
