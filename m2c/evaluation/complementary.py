"""Complementary retrieval (CVSI) on a benchmark."""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch.nn.functional import normalize

from m2c.cache_dir import cache_folder
from m2c.data.benchmarks import Benchmark
from m2c.encoding import Extractor
from m2c.retrieval.captioning import CaptionSettings, load_captioner
from m2c.retrieval.chat import load_chat
from m2c.retrieval.complementary import (
    ComplementaryFeatures,
    Fusion,
    Writer,
    fusion_for,
    mean_features,
    tune_fusion,
    with_added,
)
from m2c.retrieval.editing import Editor
from m2c.retrieval.text_store import CAPTION, EDITED_CAPTION, FILE_NAME, TextStore, say_other_revisions

from .protocols import Protocol, mean_of_parts, measure, rank


@dataclass(frozen=True)
class ComplementaryOptions:
    """Who writes the texts, and how they are weighed.

    Args:
        captioner: an image-to-text model, or `"scenes"`.
        editor: a chat model, or `"scenes"`.
        captions: of each image.
        caption_settings: how captions are drawn.
        form: one of [`m2c.retrieval.complementary.FORMS`].
        objects: whether the editor is asked for new objects too, for the composed query to name.
        weights: a benchmark whose preset is meant, or `"alpha,beta,gamma"`; the benchmark's own by default.
        caption_feature: one of [`m2c.retrieval.complementary.CAPTION_FEATURES`]; that of the weights by default.
        captioner_server: URL of an OpenAI-compatible server that runs the captioner, or an inference provider.
        editor_server: the same for the editor.
        captioner_revision: of its repository: a branch, a tag or a commit; by default the newest.
        editor_revision: the same for the editor.
        editor_seed: see [`m2c.retrieval.editing.Editor`].
        editor_max_new_tokens: see there.
        editor_tries: see there.
        concurrency: requests to a server at a time, of all processes together.
        tune: also find the best weights on these queries, to be used on others.
    """

    captioner: str
    editor: str
    captions: int = 15
    caption_settings: CaptionSettings = CaptionSettings()
    form: str = "each"
    objects: bool = True
    weights: str | None = None
    caption_feature: str | None = None
    captioner_server: str | None = None
    editor_server: str | None = None
    captioner_revision: str | None = None
    editor_revision: str | None = None
    editor_seed: int = 0
    editor_max_new_tokens: int = 128
    editor_tries: int = 4
    concurrency: int = 8
    tune: bool = False


class Complementary:
    """Complementary retrieval over the parts of one benchmark.

    Args:
        options: who writes, and how it is weighed.
        benchmark: its name, which chooses prompts and weights.
        cache_dir: of the store of texts; see [`m2c.cache_dir.cache_folder`].
        batch_size: captions that the editor, if it runs here, edits at a time.
        say: prints a line of progress.

    Raises:
        ValueError: if a model cannot be had, or an option is wrong.
    """

    def __init__(
        self,
        options: ComplementaryOptions,
        benchmark: str,
        cache_dir: Path | None,
        batch_size: int = 64,
        say: Callable[[str], None] = print,
    ):
        self.options = options
        self.fusion = fusion_for(benchmark, options.weights, options.caption_feature)
        captioner = load_captioner(
            options.captioner,
            options.caption_settings,
            options.captioner_server,
            concurrency=options.concurrency,
            revision=options.captioner_revision,
        )
        chat = load_chat(
            options.editor,
            options.editor_server,
            options.concurrency,
            batch_size=batch_size,
            revision=options.editor_revision,
        )
        store = TextStore(cache_folder(cache_dir) / FILE_NAME)
        editor = Editor(chat, benchmark, options.editor_seed, options.editor_max_new_tokens, options.editor_tries)
        say_other_revisions(store, CAPTION, captioner.identity, "--captioner_revision", say)
        say_other_revisions(store, EDITED_CAPTION, editor.generator(EDITED_CAPTION), "--editor_revision", say)
        self.writer = Writer(captioner, editor, store, options.captions, options.form, options.objects, say)
        self.parts: list[tuple[Benchmark, ComplementaryFeatures]] = []
        self.costs: list[dict] = []

    def fuse(
        self, extractor: Extractor, benchmark: Benchmark, versions: list[list[str]], prompt: str
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Queries and gallery of one part, to be compared by their product.

        Args:
            extractor: of the retriever.
            benchmark: the part.
            versions: modification texts as [`Extractor.queries`] takes them; the editor reads the first version.
            prompt: of the composed queries.

        Raises:
            ValueError: if an image cannot be read, or a query gets no usable reply.
        """
        features = self.encode(extractor, benchmark, versions, prompt)
        self.parts.append((benchmark, features))
        return features.fuse(self.fusion)

    def encode(
        self, extractor: Extractor, benchmark: Benchmark, versions: list[list[str]], prompt: str
    ) -> ComplementaryFeatures:
        """What `fuse` weighs. If captions of the gallery have no weight, only references are captioned."""
        place, digests = benchmark.positions(), extractor.digests.of_gallery(benchmark)
        references = [place[name] for name in benchmark.queries["reference_id"][:]]
        captions_gallery = self.fusion.gamma > 0
        wanted = list(range(len(digests))) if captions_gallery else sorted(set(references))
        started = time.time()
        names = benchmark.gallery["id"][:]
        written = self.writer.captions(
            lambda row: benchmark.picture(wanted[row]),
            [digests[position] for position in wanted],
            [names[position] for position in wanted],
        )
        captions, captioned = dict(zip(wanted, written)), time.time()
        edits = self.writer.edits([captions[position] for position in references], versions[0])
        edited = time.time()

        def encode(texts: list[str]) -> torch.Tensor:
            return extractor.texts([texts])

        asked = [with_added(version, edits.added, benchmark.name) for version in versions]
        composed = extractor.queries(benchmark, asked, prompt)
        # After the queries, whose image tokens hold the embeddings of the references.
        images = normalize(extractor.gallery(benchmark), dim=-1)
        features = ComplementaryFeatures(
            edited=mean_features(encode, edits.edited),
            composed=composed,
            reference=images[references],
            images=images,
            captions=mean_features(encode, written) if captions_gallery else None,
        )
        seconds = {"captions": captioned - started, "edits": edited - captioned, "features": time.time() - edited}
        self.costs.append(
            {
                "images_captioned": len(wanted),
                "seconds": {name: round(value, 1) for name, value in seconds.items()},
                "missing_captions": sum(self.writer.count - len(own) for own in written),
                "unusable_replies": edits.failed,
                "first_edited_captions": edits.edited[0],
                "first_added_objects": edits.added[0],
            }
        )
        return features

    def record(self, protocol: Protocol) -> dict:
        """Who wrote, how it was weighed, and what it took: texts that were in the store cost nothing."""
        record = {
            "captioner": self.writer.captioner.identity,
            "editor": self.writer.editor.identity,
            "captions": self.writer.count,
            "form": self.writer.form,
            "objects": self.writer.objects,
            "weights": asdict(self.fusion),
            "parts": {benchmark.category or benchmark.name: cost for (benchmark, _), cost in zip(self.parts, self.costs)},
        }
        return record | ({"tuned_on_these_queries": self.tune(protocol)} if self.options.tune else {})

    def tune(self, protocol: Protocol) -> dict:
        """The weights that are best on these queries, by the mean over parts of the protocol's first figure."""
        figures = {}

        def score(fusion: Fusion) -> float:
            parts = [
                measure(benchmark, protocol, rank(benchmark, protocol, *features.fuse(fusion), is_cosine=False))
                for benchmark, features in self.parts
            ]
            figures.update(mean_of_parts(parts))
            return figures[next(iter(figures))]

        best, value = tune_fusion(score, has_captions=self.fusion.gamma > 0)
        return {"weights": asdict(best), "figure": next(iter(figures)), "value": value}
