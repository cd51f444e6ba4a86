import shutil

import pytest

from m2c.retrieval.captioning import load_captioner


def test_what_is_no_captioner_is_named(clip_path, blip_path, tmp_path):
    damaged = tmp_path / "damaged"
    shutil.copytree(blip_path, damaged)
    (damaged / "model.safetensors").write_bytes(b"<html>")
    for name in ("./nowhere", "nobody/nothing", str(clip_path), str(damaged)):
        with pytest.raises(ValueError, match=f"cannot load a captioner from '{name}'"):
            load_captioner(name)


def test_other_weights_are_another_revision(blip_path, tmp_path):
    copy = tmp_path / "blip"
    shutil.copytree(blip_path, copy)
    assert load_captioner(str(copy)).identity == load_captioner(blip_path).identity
    content = bytearray((copy / "model.safetensors").read_bytes())
    content[-1] ^= 1
    (copy / "model.safetensors").write_bytes(content)
    assert load_captioner(str(copy)).identity["revision"] != load_captioner(blip_path).identity["revision"]
