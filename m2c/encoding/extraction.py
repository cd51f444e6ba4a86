"""Features of a benchmark's gallery and queries: in batches, on every process there is, and only what is not stored yet."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch
from accelerate.utils import gather_object
from torch.nn.functional import normalize
from torch.utils.data import DataLoader, Dataset
from tqdm.auto import tqdm

from m2c.data.benchmarks import Benchmark
from m2c.fingerprints import image_side_key
from modeling_m2c import M2CModel
from processing_m2c import M2CProcessor

from .feature_store import FeatureStore
from .image_digests import ImageDigests
from .processes import processes


# Images in one file of the store: what a killed run can lose. Tokens of an image are some hundred times its embedding.
EMBEDDINGS_PER_FILE = 512
TOKENS_PER_FILE = 128


class _Pictures(Dataset):
    def __init__(self, benchmark: Benchmark, positions: Sequence[int], processor: M2CProcessor):
        self.benchmark, self.positions, self.processor = benchmark, positions, processor

    def __len__(self) -> int:
        return len(self.positions)

    def __getitem__(self, index: int) -> tuple[int, torch.Tensor]:
        position = self.positions[index]
        picture = self.benchmark.picture(position)
        return position, self.processor(images=picture, return_tensors="pt").pixel_values[0]


class Extractor:
    """Encodes benchmarks with one model. Vision features are stored; another prompt or adapter finds them again.

    Args:
        model: in eval mode, on its device.
        processor: its processor.
        cache_dir: where features are stored; made if it does not exist.
        batch_size: images or texts at a time, on each process.
        num_workers: processes that read and prepare images, for each process that encodes.
    """

    def __init__(self, model: M2CModel, processor: M2CProcessor, cache_dir: Path, batch_size: int = 64, num_workers: int = 0):
        self.model, self.processor = model, processor
        self.batch_size, self.num_workers = batch_size, num_workers
        self.state = processes()
        if cache_dir.exists() and not cache_dir.is_dir():
            raise ValueError(f"{cache_dir} is a file; choose a folder for features with --cache_dir")
        folder = cache_dir / image_side_key(model, processor)[:32]
        self.digests = ImageDigests(cache_dir / "images.sqlite")
        self.embeddings, self.tokens = FeatureStore(folder / "embeddings"), FeatureStore(folder / "tokens")

    def gallery(self, benchmark: Benchmark) -> torch.Tensor:
        """CLIP's image embeddings of the gallery, un-normalised float32, shape `(num_gallery, projection_dim)`.

        Raises:
            ValueError: if an image cannot be read, or the model gives numbers that are not finite.
        """
        digests = self.digests.of_gallery(benchmark)
        self._ensure_embeddings(benchmark, digests)
        return self.embeddings.read(digests).float()

    def queries(self, benchmark: Benchmark, versions: list[list[str]], prompt: str) -> torch.Tensor:
        """Composed queries, unit length, shape `(num_queries, projection_dim)`.

        Args:
            benchmark: whose reference images they are.
            versions: modification texts for every query, once or several times; unit features of several are averaged.
            prompt: with `*` for the pseudo-word and `{text}` for the modification text.

        Raises:
            ValueError: as `gallery`, and if the prompt lacks one of its fields.
        """
        parts = (self.processor.image_processor, self.processor.tokenizer)
        prompted = M2CProcessor(*parts, composing_template=prompt, mapping_template=self.processor.mapping_template)
        place = benchmark.positions()
        digests = self.digests.of_gallery(benchmark)
        references = [place[name] for name in benchmark.queries["reference_id"]]
        store = self.embeddings
        if self.model.semantic_injection is None:
            self._ensure_embeddings(benchmark, digests, references)
        else:
            store = self.tokens
            self._ensure(store, benchmark, digests, references, self.model.get_image_tokens, TOKENS_PER_FILE, "references")
        # In the order of the store's files, so that each is read once; of the first process's, where others have their own.
        order = gather_object([sorted(range(len(references)), key=lambda query: store.place[digests[references[query]]])])[0]
        features = torch.zeros(len(references), self.model.config.projection_dim)
        for mine in self._shares(order, "encoding queries"):
            tokens = store.read([digests[references[query]] for query in mine]) if mine else None
            encoded = self._compose(tokens, [[texts[query] for query in mine] for texts in versions], prompted)
            for queries, part in gather_object([(mine, encoded)]):
                features[queries] = part
        return normalize(_finite(features, "queries"), dim=-1)

    def reference_images(self, benchmark: Benchmark) -> torch.Tensor:
        """CLIP's embeddings of the queries' reference images, unit length, shape `(num_queries, projection_dim)`."""
        place = benchmark.positions()
        references = [place[name] for name in benchmark.queries["reference_id"]]
        return normalize(self.gallery(benchmark)[references], dim=-1)

    @torch.no_grad()
    def texts(self, versions: list[list[str]]) -> torch.Tensor:
        """CLIP's features of plain texts, unit length, shape `(num_texts, projection_dim)`; versions as for `queries`."""
        features = torch.zeros(len(versions[0]), self.model.config.projection_dim)
        for mine in self._shares(list(range(len(features))), "encoding texts"):
            encoded = 0
            for texts in versions if mine else ():
                inputs = self.processor(text=[texts[row] for row in mine], return_tensors="pt").to(self.model.device)
                encoded = encoded + normalize(self.model.get_text_features(**inputs).pooler_output.float(), dim=-1).cpu()
            for rows, part in gather_object([(mine, encoded)]):
                features[rows] = part
        return normalize(_finite(features, "texts"), dim=-1)

    @torch.no_grad()
    def _compose(self, tokens: torch.Tensor | None, versions: list[list[str]], processor: M2CProcessor) -> torch.Tensor:
        """The sum of unit features over versions, on the CPU."""
        if tokens is None:
            return torch.zeros(0, self.model.config.projection_dim)
        tokens = tokens.to(self.model.device, self.model.dtype)
        reference = self.model.encode_reference(tokens if tokens.ndim == 3 else tokens[:, None])
        total = 0
        for texts in versions:
            prompt = processor.composed_prompt(texts, return_tensors="pt").to(self.model.device)
            total = total + normalize(self.model.compose(reference, **prompt).pooler_output.float(), dim=-1)
        return total.cpu()

    def _ensure_embeddings(self, benchmark: Benchmark, digests: list[str], positions: Sequence[int] | None = None) -> None:
        known = [digest for digest in self.embeddings.missing(digests) if digest in self.tokens.place]
        for start in range(0, len(known), TOKENS_PER_FILE):
            part = known[start : start + TOKENS_PER_FILE]
            self.embeddings.append(part, self.tokens.read(part)[:, 0])  # token 0 is the embedding

        def encode(pixels: torch.Tensor) -> torch.Tensor:
            return self.model.get_image_features(pixels).pooler_output

        positions = range(len(digests)) if positions is None else positions
        self._ensure(self.embeddings, benchmark, digests, positions, encode, EMBEDDINGS_PER_FILE, "gallery")

    @torch.no_grad()
    def _ensure(
        self,
        store: FeatureStore,
        benchmark: Benchmark,
        digests: list[str],
        positions: Sequence[int],
        encode: Callable[[torch.Tensor], torch.Tensor],
        per_file: int,
        name: str,
    ) -> None:
        """Encodes those of the gallery positions that the store of any process lacks, and stores them."""
        first = {digests[position]: position for position in reversed(positions)}
        todo = [first[digest] for digest in store.missing(digests[position] for position in positions)]
        # Stores of machines with disks of their own differ; so does one that another run is writing to.
        todo = list(dict.fromkeys(gather_object(todo)))
        if not todo:
            return  # before workers are started for nothing
        waiting: list[tuple[list[int], torch.Tensor]] = []
        try:
            for found, pixels in self._pictures(benchmark, todo, f"encoding {name}"):
                features = encode(pixels.to(self.model.device, self.model.dtype)).cpu() if found else None
                waiting += [part for part in gather_object([(found, features)]) if part[0]]
                if sum(len(found) for found, _ in waiting) >= per_file:
                    self._flush(store, digests, waiting)
        except BaseException:
            if self.state.num_processes == 1:  # storing is a common step, which others may not come to
                self._flush(store, digests, waiting)
            raise
        self._flush(store, digests, waiting)

    def _flush(self, store: FeatureStore, digests: list[str], waiting: list[tuple[list[int], torch.Tensor]]) -> None:
        if waiting:
            found = [digests[position] for positions, _ in waiting for position in positions]
            self._append(store, found, _finite(torch.cat([features for _, features in waiting]), "images"))
            waiting.clear()

    def _append(self, store: FeatureStore, digests: list[str], features: torch.Tensor) -> None:
        # The first process on each machine writes; the others on it see the file.
        with self.state.local_main_process_first():
            store.append(digests, features)

    def _pictures(
        self, benchmark: Benchmark, positions: list[int], description: str
    ) -> Iterator[tuple[list[int], torch.Tensor | None]]:
        """Batches of this process's share; empty ones at the end, so that every process has as many."""
        mine = positions[self.state.process_index :: self.state.num_processes]
        loader = DataLoader(
            _Pictures(benchmark, mine, self.processor), self.batch_size, num_workers=self.num_workers, collate_fn=_stack
        )
        batches = iter(loader)
        for _ in self._rounds(len(positions), description):
            yield next(batches, ([], None))

    def _shares(self, items: list[int], description: str) -> Iterator[list[int]]:
        """Batches of this process's share of `items`, as many on every process."""
        mine = items[self.state.process_index :: self.state.num_processes]
        for turn in self._rounds(len(items), description):
            yield mine[turn * self.batch_size : (turn + 1) * self.batch_size]

    def _rounds(self, total: int, description: str) -> tqdm:
        """A progress bar over batches, counted alike on every process."""
        longest = -(-total // self.state.num_processes)
        hidden = not total or not self.state.is_main_process
        return tqdm(range(-(-longest // self.batch_size)), desc=description, disable=hidden)


def _stack(items: list[tuple[int, torch.Tensor]]) -> tuple[list[int], torch.Tensor]:
    return [position for position, _ in items], torch.stack([pixels for _, pixels in items])


def _finite(features: torch.Tensor, name: str) -> torch.Tensor:
    broken = (~features.flatten(1).isfinite().all(dim=-1)).sum().item()
    if broken:
        raise ValueError(f"{broken} of {len(features)} {name} have features that are not finite; is the checkpoint whole?")
    return features
