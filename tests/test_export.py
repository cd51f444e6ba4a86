"""ONNX files compute what the model computes, for any batch and length."""

import builtins

import numpy as np
import onnxruntime
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from m2c.checkpoints import save_retriever
from m2c.cli import app
from m2c.training import TrainingConfig
from m2c.training.tasks.adapters import add_composing_adapter
from modeling_m2c import M2CModel


def assert_same(directory, model, processor, images: int, texts: list[str]):
    pictures = [Image.effect_noise((50, 40), 60 + index).convert("RGB") for index in range(images)]
    kinds = {
        "image": processor(images=pictures, return_tensors="pt"),
        "text": processor(text=texts, return_tensors="pt"),
        "composed": processor(images=pictures, text=texts, return_tensors="pt"),
    }
    for kind, inputs in kinds.items():
        session = onnxruntime.InferenceSession(directory / f"{kind}_features.onnx")
        assert {entry.name for entry in session.get_inputs()} == set(inputs)
        (found,) = session.run(["features"], {name: tensor.numpy() for name, tensor in inputs.items()})
        with torch.no_grad():
            expected = getattr(model, f"get_{kind}_features")(**inputs).pooler_output
        np.testing.assert_allclose(found, expected.numpy(), atol=1e-4, rtol=1e-4, err_msg=kind)


@pytest.fixture
def stage2(make_config) -> M2CModel:
    """Everything that can be in a graph: injection of averaged patches, residual adapters, a composing adapter."""
    torch.manual_seed(0)
    adapters = {"residual_adapter_layers": [1, 3], "residual_adapter_rank": 3}
    model = M2CModel(make_config(injection_layers=[0, 2], injection_grid_size=2, **adapters))
    add_composing_adapter(model, TrainingConfig(stage=2, lora_rank=4))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name or "residual" in name:
                parameter.normal_(std=0.3)
    return model.eval()


@pytest.mark.slow
def test_any_batch_and_length(stage2, processor, tmp_path):
    save_retriever(stage2, processor, tmp_path / "model")
    result = CliRunner().invoke(app, ["export", str(tmp_path / "model"), str(tmp_path / "onnx")])
    assert result.exit_code == 0 and result.output.count("Wrote") == 3
    assert_same(tmp_path / "onnx", stage2, processor, 1, ["a star"])
    assert_same(tmp_path / "onnx", stage2, processor, 3, ["is red", "", "the big circle is now small and at the top left"])
    assert_same(tmp_path / "onnx", stage2, processor, 2, ["red " * 100] * 2)


def test_errors_leave_nothing(model, processor, tmp_path, monkeypatch):
    result = CliRunner().invoke(app, ["export", str(tmp_path / "nothing"), str(tmp_path / "onnx")])
    assert result.exit_code == 1 and "cannot load" in result.output
    save_retriever(model, processor, tmp_path / "model")
    real_import = builtins.__import__

    def without_onnx(name, *args, **kwargs):
        if name.split(".")[0] in ("onnx", "onnxscript"):
            raise ModuleNotFoundError(f"No module named {name!r}")
        return real_import(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without_onnx)
    result = CliRunner().invoke(app, ["export", str(tmp_path / "model"), str(tmp_path / "onnx")])
    assert result.exit_code == 1 and "pip install onnx onnxscript" in result.output
    assert not (tmp_path / "onnx").exists()
