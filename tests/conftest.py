"""Tiny models made on the spot; nothing here needs a network."""

import os
import sys
from pathlib import Path


# Tests run beside each other, and some start processes of their own.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Before anything of Hugging Face is imported: a test that reaches for the network should fail at once.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("HF_DATASETS_OFFLINE", "1")

# `pytest` begins its search for modules in the folder of its own script, where an installed copy of train_accelerate.py lies;
# of an editable installation that copy may be old.
sys.path[:] = [entry for entry in sys.path if Path(entry) != Path(sys.executable).parent]

import pytest
import torch
from accelerate.state import AcceleratorState
from transformers import CLIPConfig, CLIPImageProcessorPil, CLIPModel

from m2c.data.scenes.train_clip import build_tokenizer
from modeling_m2c import M2CConfig, M2CModel
from processing_m2c import M2CProcessor


IMAGE_SIZE = 32


@pytest.fixture(autouse=True)
def fresh_accelerator():
    """Accelerate keeps precision and devices for the whole process; every test may choose its own."""
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.fixture(autouse=True)
def own_cache(monkeypatch, tmp_path_factory):
    """Every test encodes for itself, and nothing into the cache of whoever runs it."""
    monkeypatch.setenv("M2C_CACHE", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture(scope="session")
def tokenizer():
    return build_tokenizer()


@pytest.fixture(scope="session")
def image_processor():
    size = {"height": IMAGE_SIZE, "width": IMAGE_SIZE}
    return CLIPImageProcessorPil(size={"shortest_edge": IMAGE_SIZE}, crop_size=size)


@pytest.fixture
def processor(image_processor, tokenizer) -> M2CProcessor:
    return M2CProcessor(image_processor, tokenizer)


def clip_config(tokenizer, projection_dim: int = 24, eos_token_id: int | None = None) -> CLIPConfig:
    """Projection, text and vision widths all differ, as they do in LAION's bigG."""
    return CLIPConfig(
        projection_dim=projection_dim,
        vision_config={
            "hidden_size": 40,
            "intermediate_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "image_size": IMAGE_SIZE,
            "patch_size": 8,
            "projection_dim": projection_dim,
        },
        text_config={
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 4,
            "num_attention_heads": 2,
            "max_position_embeddings": 40,
            "vocab_size": len(tokenizer),
            "projection_dim": projection_dim,
            "pad_token_id": tokenizer.pad_token_id,
            "bos_token_id": tokenizer.bos_token_id,
            "eos_token_id": tokenizer.eos_token_id if eos_token_id is None else eos_token_id,
        },
    )


@pytest.fixture
def make_config(tokenizer):
    """Makes an `M2CConfig`; arguments override its fields, `eos_token_id` that of the text tower."""

    def make(eos_token_id: int | None = None, **overrides) -> M2CConfig:
        return _m2c_config(tokenizer, eos_token_id, **overrides)

    return make


def _m2c_config(tokenizer, eos_token_id: int | None = None, **overrides) -> M2CConfig:
    arguments = {
        "mapper_hidden_size": 20,
        "injection_hidden_size": 16,
        "injection_num_attention_heads": 4,
        "injection_layers": [0, 1, 2],
        **overrides,
    }
    return M2CConfig(**{**clip_config(tokenizer, eos_token_id=eos_token_id).to_dict(), "model_type": "m2c", **arguments})


@pytest.fixture
def clip(tokenizer) -> CLIPModel:
    torch.manual_seed(0)
    return CLIPModel(clip_config(tokenizer)).eval()


@pytest.fixture
def clip_path(clip, tokenizer, image_processor, tmp_path):
    """A plain CLIP checkpoint in the layout of `openai/clip-*`."""
    path = tmp_path / "clip"
    clip.save_pretrained(path)
    tokenizer.save_pretrained(path)
    image_processor.save_pretrained(path)
    return path


@pytest.fixture
def model(tokenizer) -> M2CModel:
    torch.manual_seed(0)
    return randomised(M2CModel(_m2c_config(tokenizer)).eval())


@torch.no_grad()
def randomised(model: M2CModel) -> M2CModel:
    """Weights large enough for differences to show, and batch-norm statistics that are not those of a new layer."""
    for name, tensor in model.state_dict().items():
        if name.endswith("running_var"):
            tensor.uniform_(0.5, 2)
        elif name.endswith("running_mean"):
            tensor.normal_(std=0.3)
        elif tensor.is_floating_point() and name.startswith(("token_mapper", "semantic_injection")):
            tensor.normal_(std=0.3)
    return model


@pytest.fixture
def pixels() -> torch.Tensor:
    return torch.randn(3, 3, IMAGE_SIZE, IMAGE_SIZE, generator=torch.Generator().manual_seed(1))
