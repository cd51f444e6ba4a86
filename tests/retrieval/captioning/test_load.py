import json
import shutil

import pytest

from m2c.retrieval.captioning import CaptionSettings, caption, load_captioner


COMMITS = "a" * 40, "b" * 40


def test_what_is_no_captioner_is_named(clip_path, chat_path):
    for name in ("./nowhere", "nobody/nothing", str(clip_path), chat_path):
        with pytest.raises(ValueError, match=f"cannot load a captioner from '{name}'"):
            load_captioner(name)


def test_damaged_weights_are_named_when_they_are_read(blip_path, store, picture, tmp_path):
    damaged = tmp_path / "damaged"
    shutil.copytree(blip_path, damaged)
    (damaged / "model.safetensors").write_bytes(b"<html>")
    with pytest.raises(ValueError, match=f"cannot load a captioner from '{damaged}'"):
        caption(store, load_captioner(str(damaged)), lambda _: picture(0), ["a"], 2, say=lambda _: None)


@pytest.mark.parametrize("kind", ["blip", "chatting"])
def test_whoever_has_all_captions_needs_no_weights(kind, blip_path, seeing_path, downloaded, store, picture):
    path = {"blip": blip_path, "chatting": seeing_path}[kind]
    name, settings = f"ana/{kind}", CaptionSettings(max_new_tokens=100, prompt="a")
    downloaded(path, name, COMMITS[0])
    digests = list("abc")
    written = caption(store, load_captioner(name, settings), picture, digests, 4, say=lambda _: None)
    snapshot = downloaded(path, name, COMMITS[1], without_weights=True)
    (snapshot.parent / COMMITS[0] / "model.safetensors").unlink()
    captioner = load_captioner(name, settings, revision=COMMITS[0])
    assert captioner.identity["revision"] == COMMITS[0]
    assert caption(store, captioner, picture, digests, 4, say=lambda _: None) == written
    with pytest.raises(ValueError, match=f"cannot load a captioner from '{name}'"):
        caption(store, captioner, picture, [*digests, "d"], 4, say=lambda _: None)


def test_a_revision_is_known_by_its_commit(blip_path, downloaded):
    """Also what is read later comes from the commit that the identity names, whatever is newest then."""
    downloaded(blip_path, "ana/blip", COMMITS[0])
    captioner = load_captioner("ana/blip")
    assert captioner.identity == load_captioner("ana/blip", revision="main").identity
    assert captioner.identity["revision"] == COMMITS[0]
    newer = downloaded(blip_path, "ana/blip", COMMITS[1])
    (newer / "model.safetensors").write_bytes(b"<html>")
    assert captioner.model.device.type == "cpu"
    newest, pinned = load_captioner("ana/blip"), load_captioner("ana/blip", revision=COMMITS[0])
    assert newest.identity == {**captioner.identity, "revision": COMMITS[1]} and pinned.identity == captioner.identity


def test_a_folder_has_no_revision_to_choose(blip_path):
    with pytest.raises(ValueError, match="a folder has no revision main, it is known by its files"):
        load_captioner(blip_path, revision="main")


def test_a_server_tells_no_revision(chat_server):
    with pytest.raises(ValueError, match="does not tell which revision of 'tiny' it runs"):
        load_captioner("tiny", server=chat_server.url, revision="main")


def test_a_processor_that_needs_another_package_is_named_with_it(seeing_path, tmp_path):
    """As those of Qwen2.5-VL and SmolVLM, whose processors of videos need torchvision."""
    path = tmp_path / "qwen"
    shutil.copytree(seeing_path, path)
    (path / "processor_config.json").unlink()
    settings = {"processor_class": "Qwen2_5_VLProcessor", "image_processor_type": "Qwen2VLImageProcessor"}
    (path / "preprocessor_config.json").write_text(json.dumps(settings))
    with pytest.raises(ValueError, match=r"'.*/qwen': \w+ requires the Torchvision library .*; install it, or choose") as error:
        load_captioner(str(path))
    assert "\n" not in str(error.value)


def test_the_batch_size_is_also_that_of_a_model_that_chats(seeing_path):
    assert load_captioner(seeing_path, batch_size=3).chat.batch_size == 3


def test_other_weights_are_another_revision(blip_path, tmp_path):
    copy = tmp_path / "blip"
    shutil.copytree(blip_path, copy)
    assert load_captioner(str(copy)).identity == load_captioner(blip_path).identity
    content = bytearray((copy / "model.safetensors").read_bytes())
    content[-1] ^= 1
    (copy / "model.safetensors").write_bytes(content)
    assert load_captioner(str(copy)).identity["revision"] != load_captioner(blip_path).identity["revision"]
