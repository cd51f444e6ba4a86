import json
import re

import pytest
import torch
from safetensors.torch import save_file

from m2c.checkpoints import load_model, load_processor
from m2c.encoding.feature_store import FeatureStore
from m2c.fingerprints import image_side_key


def rows(*numbers: int) -> torch.Tensor:
    return torch.tensor([[float(number), -float(number)] for number in numbers])


def test_features_are_found_again_in_any_order(tmp_path):
    store = FeatureStore(tmp_path / "store")
    store.append(["a", "b", "c"], rows(1, 2, 3))
    store.append(["d"], rows(4))
    again = FeatureStore(tmp_path / "store")
    for each in (store, again):
        assert torch.equal(each.read(["d", "b", "a", "b"]), rows(4, 2, 1, 2))
        assert each.missing(["x", "a", "y", "x"]) == ["x", "y"]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_shape_and_precision_stay(tmp_path, dtype):
    tokens = torch.randn(3, 5, 4).to(dtype)
    FeatureStore(tmp_path).append(["a", "b", "c"], tokens)
    store = FeatureStore(tmp_path)
    assert torch.equal(store.read(["c"]), tokens[2:]) and store.read(["c"]).dtype == dtype
    assert torch.equal(store.read(["c", "a"]), tokens[[2, 0]])


def test_a_slice_of_a_larger_tensor_can_be_stored(tmp_path):
    tokens = torch.randn(3, 5, 4)
    store = FeatureStore(tmp_path)
    store.append(["a", "b", "c"], tokens[:, 0])
    assert torch.equal(store.read(["b"]), tokens[1:2, 0])


def test_what_is_not_there_is_an_error(tmp_path):
    with pytest.raises(KeyError):
        FeatureStore(tmp_path).read(["a"])


def test_what_another_process_wrote_is_taken_as_it_is(tmp_path):
    first, second = FeatureStore(tmp_path), FeatureStore(tmp_path)
    first.append(["a", "b"], rows(1, 2))
    second.append(["a", "b"], rows(8, 9))
    assert torch.equal(second.read(["a", "b"]), rows(1, 2))
    assert len(list(tmp_path.iterdir())) == 1


def test_a_truncated_file_is_dropped_and_the_others_stay(tmp_path):
    store = FeatureStore(tmp_path)
    store.append(["a", "b"], rows(1, 2))
    store.append(["c"], rows(3))
    path, _ = store.place["a"]
    path.write_bytes(path.read_bytes()[:-4])
    again = FeatureStore(tmp_path)
    assert again.missing(["a", "b", "c"]) == ["a", "b"] and not path.exists()
    again.append(["a", "b"], rows(1, 2))
    assert torch.equal(FeatureStore(tmp_path).read(["a", "b", "c"]), rows(1, 2, 3))


@pytest.mark.parametrize(
    "tensors, metadata",
    [
        ({"features": rows(1)}, None),
        ({"features": rows(1)}, {"format": "pt"}),
        ({"features": rows(1)}, {"digests": "not JSON"}),
        ({"features": rows(1)}, {"digests": "5"}),
        ({"features": rows(1)}, {"digests": json.dumps(["a", "b"])}),
        ({"weight": rows(1)}, {"digests": json.dumps(["a"])}),
    ],
)
def test_a_foreign_file_is_dropped(tmp_path, tensors, metadata):
    save_file(tensors, tmp_path / "foreign.safetensors", metadata=metadata)
    store = FeatureStore(tmp_path)
    assert store.missing(["a"]) == ["a"] and not list(tmp_path.iterdir())


@pytest.mark.parametrize("content", [b"", b"<html>", b"\0" * 400])
def test_a_file_of_another_kind_is_dropped(tmp_path, content):
    (tmp_path / "x.safetensors").write_bytes(content)
    assert FeatureStore(tmp_path).place == {} and not list(tmp_path.iterdir())


def test_a_broken_file_that_another_process_dropped_first_is_no_error(tmp_path, monkeypatch):
    (tmp_path / "x.safetensors").write_bytes(b"broken")
    paths = list(tmp_path.glob("*"))
    monkeypatch.setattr(type(tmp_path), "glob", lambda self, pattern: iter(paths))
    assert FeatureStore(tmp_path).place == {}
    assert FeatureStore(tmp_path).place == {}, "listed before it was dropped, and gone when it is opened"


def test_a_full_disk_leaves_no_half_file(tmp_path):
    """A real one: the operating system refuses to let a file grow."""
    resource = pytest.importorskip("resource")
    store = FeatureStore(tmp_path)
    store.append(["a"], rows(1))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
    try:
        with pytest.raises(OSError, match=re.escape(f"features cannot be stored in {tmp_path}: ")):
            store.append(["b"], torch.ones(1, 4096))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert store.missing(["a", "b"]) == ["b"] and len(list(tmp_path.iterdir())) == 1
    assert torch.equal(FeatureStore(tmp_path).read(["a"]), rows(1))


def key(name: str, dtype: torch.dtype = torch.float32, **processor_arguments) -> str:
    return image_side_key(load_model(name).to(dtype), load_processor(name, **processor_arguments))


def test_the_key_is_that_of_the_clip_underneath(injecting, mapping, adapted, save_untrained, tmp_path):
    """Whatever composes queries, and from wherever it was loaded, images are encoded alike."""
    moved = save_untrained(tmp_path / "elsewhere", 7, injection_layers=[2])
    assert {key(name) for name in (injecting, mapping, adapted, moved)} == {key("scenes")}


def test_the_key_depends_on_all_that_decides_a_feature(injecting):
    model, processor = load_model(injecting), load_processor(injecting)
    keys = {image_side_key(model, processor), key(injecting, target_pad=1.25), key(injecting, torch.bfloat16)}
    for name in ("vision_model.embeddings.class_embedding", "visual_projection.weight"):
        with torch.no_grad():
            model.state_dict()[name].view(-1)[0] += 1
        keys.add(image_side_key(model, processor))
    processor.image_processor.image_mean = [0.4, 0.5, 0.6]
    keys.add(image_side_key(model, processor))
    model.config.vision_config.hidden_act = "gelu_pytorch_tanh"
    keys.add(image_side_key(model, processor))
    assert len(keys) == 7


def test_prompt_and_text_tower_are_not_part_of_the_key(injecting):
    model, processor = load_model(injecting), load_processor(injecting)
    expected = image_side_key(model, processor)
    processor.composing_template = "{text} *"
    with torch.no_grad():
        model.text_projection.weight.add_(1)
        model.logit_scale.add_(1)
    assert image_side_key(model, processor) == expected
