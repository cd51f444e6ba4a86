"""Inference on a CPU in other forms than eager float32: how exact, and how fast.

    m2c quickstart                      # makes the model
    python benchmarks/inference.py      # some minutes on two cores; --help for its options

The first table measures the quickstart's model, its adapter merged, on its own test set, with queries and gallery encoded in
each form; "cosine" is the lowest between a feature and its float32 original. The second times a model of the exact size of CLIP
ViT-B/32 with random weights and default M2C modules, all forms in turns within one run. A speed above 1 is faster than eager
float32.
"""

import copy
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Annotated

import onnx
import onnxruntime
import torch
import typer
from onnxruntime.quantization import quantize_dynamic
from timing import print_table, time_in_turns
from torch.nn.functional import normalize

from m2c.checkpoints import load_model, load_processor
from m2c.data import scenes
from m2c.evaluation.scenes_benchmark import ScenesBenchmark
from m2c.export import export_onnx
from modeling_m2c import M2CConfig, M2CModel
from processing_m2c import M2CProcessor


@dataclass
class Form:
    """Two functions that take what the processor returns and give features: of gallery images, and of composed queries."""

    image: Callable[..., torch.Tensor]
    composed: Callable[..., torch.Tensor]


def of_model(model: M2CModel, wrap: Callable = lambda function: function) -> Form:
    def cast(inputs):
        return {name: x.to(model.dtype) if x.is_floating_point() else x for name, x in inputs.items()}

    image, composed = wrap(model.get_image_features), wrap(model.get_composed_features)
    return Form(
        lambda **inputs: image(**cast(inputs)).pooler_output.float(),
        lambda **inputs: composed(**cast(inputs)).pooler_output.float(),
    )


def of_onnx(model: M2CModel, processor: M2CProcessor, int8: bool) -> Form:
    sessions = {}
    with tempfile.TemporaryDirectory() as folder:
        for path in export_onnx(model, processor, folder):
            if int8:
                graph = onnx.load(path)
                # The exporter's notes on shapes name the dimensions otherwise than the quantiser infers them.
                del graph.graph.value_info[:]
                path = path.with_suffix(".int8")
                quantize_dynamic(graph, path)
            sessions[path.stem] = onnxruntime.InferenceSession(path)

    def run(kind: str, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        session = sessions[f"{kind}_features"]
        return torch.from_numpy(session.run(None, {name: tensor.numpy() for name, tensor in inputs.items()})[0])

    return Form(lambda **inputs: run("image", inputs), lambda **inputs: run("composed", inputs))


def quantized(model: M2CModel) -> M2CModel:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch announces another library for it
        return torch.ao.quantization.quantize_dynamic(copy.deepcopy(model), {torch.nn.Linear}, dtype=torch.qint8)


def all_forms(model: M2CModel, processor: M2CProcessor) -> dict[str, Form]:
    return {
        "eager float32": of_model(model),
        "torch.compile": of_model(model, lambda function: torch.compile(function, fullgraph=True, dynamic=True)),
        "bfloat16": of_model(copy.deepcopy(model).to(torch.bfloat16)),
        "int8 dynamic": of_model(quantized(model)),
        "ONNX Runtime": of_onnx(model, processor, int8=False),
        "ONNX Runtime, int8 dynamic": of_onnx(model, processor, int8=True),
    }


def in_batches(encode: Callable[..., torch.Tensor], inputs: dict[str, torch.Tensor], size: int = 250) -> torch.Tensor:
    total = len(next(iter(inputs.values())))
    parts = [encode(**{name: x[start : start + size] for name, x in inputs.items()}) for start in range(0, total, size)]
    return normalize(torch.cat(parts), dim=-1)


def measure_accuracy(path: str, queries: int) -> None:
    model, processor = load_model(path).eval(), load_processor(path)
    model.merge_adapter()  # torch's quantiser does not know the layers of PEFT
    data = scenes.composed_retrieval(queries)
    gallery = data["gallery"][:]["image"]
    references = [gallery[index] for index in data["queries"]["reference_id"]]
    images = processor(images=gallery, return_tensors="pt")
    composed = processor(images=references, text=data["queries"][:]["modification"], return_tensors="pt")
    rows, original = [], None
    for name, form in all_forms(model, processor).items():
        features = in_batches(form.image, images), in_batches(form.composed, composed)
        original = original or features
        cosines = [f"{(new * old).sum(-1).min():.4f}" for new, old in zip(features, original)]
        figures = ScenesBenchmark(data, features[0]).score(features[1])
        rows.append([name, *(str(figures[metric]) for metric in ("R@1", "R@10", "mAP@10")), *cosines])
    print(f"\n{path}, {queries} queries, gallery of {len(gallery)}:\n")
    print_table(["form", "R@1", "R@10", "mAP@10", "cosine, image", "cosine, query"], rows)


def measure_speed(batch_size: int, rounds: int) -> None:
    torch.manual_seed(0)
    model = M2CModel(M2CConfig()).eval()  # the defaults are the sizes of CLIP ViT-B/32
    processor = load_processor("scenes")
    ids = torch.randint(1000, 2000, (batch_size, 16))
    ids[:, -1] = model.config.text_config.eos_token_id
    images = {"pixel_values": torch.randn(batch_size, 3, 224, 224)}
    composed = {
        **images,
        "input_ids": ids,
        "pseudo_word_position": torch.full((batch_size,), 4),
        "attention_mask": torch.ones_like(ids),
    }
    forms = all_forms(model, processor)
    rows = {name: [name] for name in forms}
    for run in (lambda form: form.image(**images), lambda form: form.composed(**composed)):
        seconds = time_in_turns({name: partial(run, form) for name, form in forms.items()}, rounds)
        for name, row in rows.items():
            row += [f"{seconds['eager float32'] / seconds[name]:.2f}", f"{batch_size / seconds[name]:.1f}"]
    threads = torch.get_num_threads()
    print(f"\nCLIP ViT-B/32 size, random weights, batches of {batch_size}, prompts of 16 tokens, {threads} threads:\n")
    print_table(["form", "speed, image", "images/s", "speed, query", "queries/s"], list(rows.values()))


@torch.no_grad()
def main(
    model: Annotated[str, typer.Option(help="A retriever trained on scenes.")] = "m2c-quickstart/model",
    queries: Annotated[int, typer.Option(help="Queries of the accuracy table.")] = 500,
    batch_size: Annotated[int, typer.Option(help="Of the speed table.")] = 16,
    rounds: Annotated[int, typer.Option(help="Timed rounds of the speed table.")] = 7,
) -> None:
    measure_accuracy(model, queries)
    measure_speed(batch_size, rounds)


if __name__ == "__main__":
    typer.run(main)
