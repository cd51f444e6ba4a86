"""One evaluation: a retriever on a benchmark, and the record of how it was done."""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from m2c.cache_dir import cache_folder
from m2c.checkpoints import is_m2c, load_model, load_processor
from m2c.conventions import JOININGS, METHOD_JOININGS, PROMPTS, method_of, prompt_for
from m2c.data.benchmarks import Benchmark
from m2c.encoding import Extractor, processes
from m2c.versions import versions
from modeling_m2c import M2CModel
from processing_m2c import M2CProcessor

from .baselines import add
from .complementary import Complementary, ComplementaryOptions
from .protocols import Rankings, mean_of_parts, measure, protocol_of, rank
from .query_texts import query_texts
from .record import describe_model, describe_preprocessing


# What a query is made of: the composed feature, or for comparison plain CLIP features of text, image, or their sum.
QUERIES = ("composed", "text", "image", "sum")
DTYPES = ("float32", "bfloat16", "float16")


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
        cache_dir: where features and texts are stored; see [`m2c.cache_dir.cache_folder`].
        complementary: retrieve with the help of a captioner and a language model (CVSI), and how.
    """

    query: str = "composed"
    prompt: str | None = None
    joining: str | None = None
    shared_concept: bool = False
    dtype: str = "float32"
    device: str | None = None
    batch_size: int = 64
    num_workers: int = 0
    cache_dir: Path | None = None
    complementary: ComplementaryOptions | None = None


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
        ValueError: if the model is a plain CLIP and composed queries are wanted, an option is unknown or could not act, or an
            image cannot be read.
    """
    started = time.time()
    _check(name, benchmarks, options)
    model, processor = _load(name, options), load_processor(name)
    extractor = Extractor(model, processor, cache_folder(options.cache_dir), options.batch_size, options.num_workers)
    asked = how_to_ask(model, processor, benchmarks[0], options)
    protocol, helpers = protocol_of(benchmarks[0]), None
    if options.complementary:
        helpers = Complementary(options.complementary, benchmarks[0].name, options.cache_dir, options.batch_size, say)
    parts, results = [], {}
    for benchmark in benchmarks:
        title = benchmark.category or benchmark.name
        say(f"{title}, {benchmark.split}: {len(benchmark.queries)} queries, {len(benchmark.gallery)} gallery images")
        if helpers is None:
            queries, gallery = query_features(extractor, benchmark, asked), extractor.gallery(benchmark)
        else:
            queries, gallery = helpers.fuse(extractor, benchmark, _texts(benchmark, asked), asked["prompt"])
        rankings = rank(benchmark, protocol, queries, gallery, is_cosine=helpers is None)
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
        "query": asked if helpers is None else {**asked, "complementary": helpers.record(protocol)},
        "preprocessing": describe_preprocessing(processor),
        "model": describe_model(name, model),
        "environment": {"device": str(model.device), "processes": extractor.state.num_processes, **versions()},
        "date": time.strftime("%Y-%m-%d"),
        "seconds": round(time.time() - started, 1),
    }
    return Evaluation(record, parts)


def _check(name: str, benchmarks: list[Benchmark], options: Options) -> None:
    """Raises `ValueError` for options that are unknown, or could not act."""
    known_values = {"query": QUERIES, "joining": (None, *JOININGS), "dtype": DTYPES}
    for title, known in known_values.items():
        if getattr(options, title) not in known:
            raise ValueError(f"{title} is one of {', '.join(filter(None, known))}, not {getattr(options, title)!r}")
    if options.query == "composed" and not is_m2c(name):
        raise ValueError(
            f"{name!r} is a plain CLIP, which cannot compose queries; train it (m2c train) or convert a checkpoint (m2c "
            "convert), or measure it with --query text, image or sum"
        )
    if options.complementary is not None:
        _check_complementary(options, benchmarks)
    if options.prompt is not None and options.query != "composed":
        raise ValueError(f"a prompt is for composed queries; with query {options.query!r} it would do nothing")
    if options.joining and not _has_several_captions(benchmarks[0]):
        raise ValueError(f"joining is for queries with several captions; those of {benchmarks[0].name} have one")
    if options.shared_concept and not any(benchmarks[0].queries["shared_concept"][:]):
        raise ValueError(f"the queries of {benchmarks[0].name} have no shared concept")


def _check_complementary(options: Options, benchmarks: list[Benchmark]) -> None:
    if options.query != "composed":
        raise ValueError(f"complementary retrieval needs composed queries; with query {options.query!r} there are none")
    if options.complementary.tune and None in benchmarks[0].queries["target_id"][:]:
        raise ValueError(f"weights are tuned by targets, which the split {benchmarks[0].split} keeps secret")


def _has_several_captions(benchmark: Benchmark) -> bool:
    return any(len(captions) > 1 for captions in benchmark.queries["captions"][:])


def _load(name: str, options: Options) -> M2CModel:
    device = options.device or processes().device
    return load_model(name).eval().to(device, getattr(torch, options.dtype))


def how_to_ask(model: M2CModel, processor: M2CProcessor, benchmark: Benchmark, options: Options) -> dict:
    """How queries are asked, and the first of them as it is asked: what a reader needs to ask the same."""
    asked = {"kind": options.query}
    if options.query == "image":
        return asked
    method = method_of(model.config)
    if options.query == "composed":
        # A template of the checkpoint's own counts; one that only names the method leaves the choice to the benchmark.
        own = processor.composing_template
        prompt = prompt_for(method, benchmark.name) if own == PROMPTS[method] else own
        asked |= {"prompt": prompt if options.prompt is None else options.prompt, "conventions": method}
        asked |= {"prompt_without_text": processor.mapping_template}
    if _has_several_captions(benchmark):
        asked["joining"] = options.joining or ("first-second" if options.complementary else METHOD_JOININGS[method])
    asked["shared_concept"] = options.shared_concept
    first = [version[0] for version in _texts(benchmark, asked)]
    if options.query == "composed":
        first = [asked["prompt"].replace("{text}", text) if text.strip() else asked["prompt_without_text"] for text in first]
    return {**asked, "first_query": first}


def _texts(benchmark: Benchmark, asked: dict) -> list[list[str]]:
    return query_texts(benchmark.queries, asked.get("joining", "first-second"), asked["shared_concept"])


def query_features(extractor: Extractor, benchmark: Benchmark, asked: dict) -> torch.Tensor:
    """Features of the queries, asked as [`how_to_ask`] says, unit length, shape `(num_queries, projection_dim)`."""
    if asked["kind"] == "composed":
        return extractor.queries(benchmark, _texts(benchmark, asked), asked["prompt"])
    if asked["kind"] == "text":
        return extractor.texts(_texts(benchmark, asked))
    images = extractor.reference_images(benchmark)
    return images if asked["kind"] == "image" else add(images, extractor.texts(_texts(benchmark, asked)))
