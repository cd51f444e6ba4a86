"""Tiny models and benchmarks made on the spot; nothing here needs a network."""

import io
import json
import os
import signal
import sys
from pathlib import Path


# A shell starts what it runs in the background deaf to Ctrl-C, which some tests press.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
# Tests run beside each other, and some start processes of their own.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Before anything of Hugging Face is imported: a test that reaches for the network should fail at once.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("HF_DATASETS_OFFLINE", "1")

# `pytest` begins its search for modules in the folder of its own script, where an installed copy of train_accelerate.py lies;
# of an editable installation that copy may be old.
sys.path[:] = [entry for entry in sys.path if Path(entry) != Path(sys.executable).parent]

import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState
from datasets import Dataset
from hypothesis import HealthCheck, settings
from PIL import Image
from transformers import CLIPConfig, CLIPImageProcessorPil, CLIPModel
from transformers.models.clip.modeling_clip import CLIPVisionModel

from m2c.checkpoints import load_model, load_processor, save_retriever
from m2c.data.benchmarks import GALLERY_FEATURES, QUERY_FEATURES, Benchmark, make_query
from m2c.data.benchmarks.scenes import load_scenes
from m2c.data.scenes.train_clip import build_tokenizer
from m2c.evaluation.evaluate import Options
from m2c.retrieval.chat import Failure
from m2c.retrieval.text_store import TextStore
from modeling_m2c import M2CConfig, M2CModel
from processing_m2c import M2CProcessor


IMAGE_SIZE = 32

# A busy machine is not a defect.
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")


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


def _picture(seed: int, size: tuple[int, int] = (24, 16)) -> Image.Image:
    coarse = np.random.default_rng(seed).integers(0, 256, (2, 3, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize(size, Image.Resampling.NEAREST)


def _png(seed: int) -> dict:
    buffer = io.BytesIO()
    _picture(seed).save(buffer, "PNG")
    return {"bytes": buffer.getvalue(), "path": None}


@pytest.fixture(scope="session")
def picture():
    return _picture


@pytest.fixture(scope="session")
def make_benchmark():
    """A benchmark over images with the given ids, whose pictures are drawn by their place, or files of the given paths."""

    def make(ids="abcdef", queries: list[dict] | None = None, paths: list[Path] | None = None, **fields) -> Benchmark:
        queries = queries or [make_query("0", ids[0], ["in red"], ids[1]), make_query("1", ids[-1], ["with a dot"], ids[0])]
        images = [_png(place) for place in range(len(ids))] if paths is None else [str(path) for path in paths]
        columns = {"id": list(ids), "image": images, "box": fields.pop("boxes", [[] for _ in ids])}
        gallery = Dataset.from_dict(columns, features=GALLERY_FEATURES)
        fields = {"name": "mine", "split": "val", **fields}
        return Benchmark(gallery=gallery, queries=Dataset.from_list(queries, features=QUERY_FEATURES), **fields)

    return make


@pytest.fixture(scope="session")
def scenes() -> Benchmark:
    return load_scenes(num_queries=20)


@torch.no_grad()
def _save_retriever(path: Path, seed: int, **config) -> str:
    """The shipped CLIP with M2C modules whose weights are large enough for an image to matter."""
    torch.manual_seed(seed)
    model = load_model("scenes", mapper_hidden_size=16, injection_hidden_size=16, **config)
    for name, tensor in model.state_dict().items():
        if name.startswith(("token_mapper", "semantic_injection")) and name.endswith("weight"):
            tensor.normal_(std=0.2)
    save_retriever(model.eval(), load_processor("scenes"), path)
    return str(path)


@pytest.fixture(scope="session")
def save_untrained():
    """Saves an untrained retriever over the shipped CLIP: by folder, seed and fields of its configuration."""
    return _save_retriever


@pytest.fixture(scope="session")
def injecting(tmp_path_factory) -> str:
    return _save_retriever(tmp_path_factory.mktemp("models") / "injecting", 0, injection_layers=[0, 1])


@pytest.fixture(scope="session")
def mapping(tmp_path_factory) -> str:
    """A retriever without injection."""
    return _save_retriever(tmp_path_factory.mktemp("models") / "mapping", 1, injection_layers=[])


@pytest.fixture(scope="session")
def adapted(injecting, tmp_path_factory) -> str:
    """`injecting` with an adapter of its composing encoder, which changes what it composes."""
    from peft import LoraConfig

    torch.manual_seed(2)
    model = load_model(injecting)
    model.add_adapter(LoraConfig(r=2, target_modules=r"composing_encoder\..*(q_proj|v_proj)", init_lora_weights=False))
    path = tmp_path_factory.mktemp("models") / "adapted"
    save_retriever(model.eval(), load_processor(injecting), path)
    return str(path)


class VisionTower:
    """Counts the images that go through any vision tower, and breaks down before it takes more than `limit`."""

    def __init__(self):
        self.images, self.limit = 0, None

    def take(self, count: int) -> None:
        if self.limit is not None and self.images + count > self.limit:
            raise KeyboardInterrupt
        self.images += count

    def count(self, run, *args, **kwargs) -> int:
        """How many images a call encodes."""
        before = self.images
        run(*args, **kwargs)
        return self.images - before


@pytest.fixture
def tower(monkeypatch) -> VisionTower:
    tower, forward = VisionTower(), CLIPVisionModel.forward

    def counted(self, pixel_values, *args, **kwargs):
        tower.take(len(pixel_values))
        return forward(self, pixel_values, *args, **kwargs)

    monkeypatch.setattr(CLIPVisionModel, "forward", counted)
    return tower


@pytest.fixture(scope="session")
def write_json():
    def write(path: Path, content) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content), encoding="utf-8")
        return path

    return write


@pytest.fixture
def options(tmp_path):
    """Options with a store of this test's own."""

    def make(**fields) -> Options:
        return Options(**{"cache_dir": tmp_path / "cache", "device": "cpu", **fields})

    return make


class ScriptedCaptioner:
    """Says what it was asked for: the number of the caption, and the colour in the middle of the picture."""

    def __init__(self):
        self.identity, self.batch_size, self.asked = {"model": "scripted captioner"}, 4, []

    def captions(self, pictures, digests, numbers, attempt=0):
        for row, picture in enumerate(pictures):
            self.asked += [(digests[row], number) for number in numbers]
            color = picture.getpixel((picture.width // 2, picture.height // 2))
            yield [(row, number, f"caption {number} of {color}") for number in numbers]


class ScriptedChat:
    """Replies with its last message, or with what `script` makes of it."""

    def __init__(self, script=None):
        self.identity, self.asked = {"model": "scripted chat"}, []
        self.script = script or (lambda text: text.replace("\n", " "))

    def replies(self, requests):
        for position, request in enumerate(requests):
            text = request.messages[-1]["content"]
            self.asked.append(text)
            reply = self.script(text)
            yield [(position, Failure("no reply") if reply is None else reply)]


@pytest.fixture
def captioner() -> ScriptedCaptioner:
    return ScriptedCaptioner()


@pytest.fixture
def make_chat():
    return ScriptedChat


@pytest.fixture
def store(tmp_path) -> TextStore:
    return TextStore(tmp_path / "texts.sqlite")
