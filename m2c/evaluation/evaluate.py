"""One evaluation: a retriever on a benchmark, and the record of how it was done."""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from m2c.checkpoints import is_m2c, load_model, load_processor
from m2c.conventions import JOININGS, METHOD_JOININGS, method_of, prompt_for
from m2c.data.benchmarks import Benchmark
from modeling_m2c import M2CModel

from .baselines import add
from .extraction import Extractor
from .processes import processes
from .protocols import Rankings, mean_of_parts, measure, protocol_of, rank
from .query_texts import query_texts
from .record import describe_model, describe_preprocessing, versions


DEFAULT_CACHE = Path.home() / ".cache" / "m2c"
# What a query is made of: the composed feature, or for comparison plain CLIP features of text, image, or their sum.
QUERIES = ("composed", "text", "image", "sum")


@dataclass(frozen=True)
class Options:
    """How to evaluate. `None` stands for what the method's authors do; see [`m2c.conventions`].

    Args:
        query: one of `QUERIES`.
        prompt: template with `*` and `{text}`.
        joining: one of `JOININGS`, for FashionIQ.
        shared_concept: whether CIRCO's shared concept is put behind the text.
        dtype: `"float32"`, `"bfloat16"` or `"float16"`, of the model.
        device: as torch names it; the GPU, if there is one.
        batch_size: images or queries at a time, on each process.
        num_workers: processes that read images, for each process that encodes.
        cache_dir: where features are stored.
    """

    query: str = "composed"
    prompt: str | None = None
    joining: str | None = None
    shared_concept: bool = False
    dtype: str = "float32"
    device: str | None = None
    batch_size: int = 64
    num_workers: int = 0
    cache_dir: Path = DEFAULT_CACHE


DEFAULTS = Options()


@dataclass(frozen=True)
class Evaluation:
    """What came out: the record, and for each part of the benchmark its rankings."""

    record: dict
    parts: list[tuple[Benchmark, Rankings]]


def evaluate(
    name: str, benchmarks: list[Benchmark], options: Options = DEFAULTS, say: Callable[[str], None] = print
) -> Evaluation:
    """Measures a retriever on the parts of a benchmark.

    Args:
        name: of the retriever: a folder or a repository of the Hub.
        benchmarks: the parts, as [`m2c.data.benchmarks.load_benchmark`] gives them.
        options: how to do it.
        say: prints a line of progress.

    Raises:
        ValueError: if the model is a plain CLIP and composed queries are wanted, an option is unknown, or an image cannot be
            read.
    """
    started = time.time()
    _check(name, options)
    extractor = Extractor(
        _load(name, options), load_processor(name), options.cache_dir, options.batch_size, options.num_workers
    )
    model = extractor.model
    method = method_of(model.config)
    prompt = prompt_for(method, benchmarks[0].name) if options.prompt is None else options.prompt
    joining = options.joining or METHOD_JOININGS[method]
    protocol = protocol_of(benchmarks[0])
    parts, results = [], {}
    for benchmark in benchmarks:
        title = benchmark.category or benchmark.name
        say(f"{title}, {benchmark.split}: {len(benchmark.queries)} queries, {len(benchmark.gallery)} gallery images")
        texts = query_texts(benchmark.queries, joining, options.shared_concept)
        queries = _queries(extractor, benchmark, texts, prompt, options.query)
        rankings = rank(benchmark, protocol, queries, extractor.gallery(benchmark))
        results[title] = {
            "figures": measure(benchmark, protocol, rankings),
            "queries": len(benchmark.queries),
            "gallery": len(benchmark.gallery),
            "left_out": benchmark.left_out,
        }
        parts.append((benchmark, rankings))
    record = {
        "benchmark": benchmarks[0].name,
        "split": benchmarks[0].split,
        "figures": mean_of_parts([part["figures"] for part in results.values()]),
        "parts": results,
        "protocol": {**asdict(protocol), "gallery": benchmarks[0].variant},
        "query": {"kind": options.query, **_describe_texts(method, prompt, joining, options, texts)},
        "preprocessing": describe_preprocessing(extractor.processor),
        "model": describe_model(name, model),
        "environment": {"device": str(model.device), "processes": extractor.state.num_processes, **versions()},
        "date": time.strftime("%Y-%m-%d"),
        "seconds": round(time.time() - started, 1),
    }
    return Evaluation(record, parts)


def _check(name: str, options: Options) -> None:
    for value, known, title in ((options.query, QUERIES, "query"), (options.joining, (None, *JOININGS), "joining")):
        if value not in known:
            raise ValueError(f"--{title} is one of {', '.join(filter(None, known))}, not {value!r}")
    if options.query == "composed" and not is_m2c(name):
        raise ValueError(
            f"{name!r} is a plain CLIP, which cannot compose queries; train it (m2c train) or convert a checkpoint (m2c "
            "convert), or measure it with --query text, image or sum"
        )


def _load(name: str, options: Options) -> M2CModel:
    device = options.device or processes().device
    return load_model(name).eval().to(device, getattr(torch, options.dtype))


def _queries(extractor: Extractor, benchmark: Benchmark, texts: list[list[str]], prompt: str, kind: str) -> torch.Tensor:
    if kind == "composed":
        return extractor.queries(benchmark, texts, prompt)
    if kind == "text":
        return extractor.texts(texts)
    images = extractor.reference_images(benchmark)
    return images if kind == "image" else add(images, extractor.texts(texts))


def _describe_texts(method: str, prompt: str, joining: str, options: Options, texts: list[list[str]]) -> dict:
    """What a reader needs to ask the same questions, with the first of them."""
    if options.query == "image":
        return {}
    shared = {"joining": joining, "shared_concept": options.shared_concept}
    template = prompt if options.query == "composed" else "{text}"
    example = [template.replace("{text}", version[0]) for version in texts]
    return {"conventions": method, "prompt": template, **shared, "first_query": example}
