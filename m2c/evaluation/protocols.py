"""How each benchmark is measured: which figures, over which ranking."""

from dataclasses import dataclass

import torch

from m2c.data.benchmarks import Benchmark

from .metrics import mean_average_precision_at_k, rank_gallery, rank_subsets, recall_at_k


@dataclass(frozen=True)
class Protocol:
    """What is measured on a benchmark.

    Args:
        recall: the k of R@k: the target is among the first k of the gallery.
        subset_recall: the k of subset R@k: the target is among the first k of the query's own subset.
        mean_average_precision: the k of mAP@k, over all correct answers.
        aspect_precision: the k of mAP@k for each semantic aspect, over the queries that carry it.
        excludes_reference: whether the reference image is left out of its query's ranking.
    """

    recall: tuple[int, ...] = ()
    subset_recall: tuple[int, ...] = ()
    mean_average_precision: tuple[int, ...] = ()
    aspect_precision: int | None = None
    excludes_reference: bool = False


PROTOCOLS = {
    "cirr": Protocol(recall=(1, 5, 10, 50), subset_recall=(1, 2, 3), excludes_reference=True),
    "circo": Protocol(recall=(5, 10, 25, 50), mean_average_precision=(5, 10, 25, 50), aspect_precision=10),
    "fashioniq": Protocol(recall=(10, 50)),
    "genecis": Protocol(subset_recall=(1, 2, 3)),
    "scenes": Protocol(recall=(1, 5, 10), subset_recall=(1,), mean_average_precision=(10,), excludes_reference=True),
}


def own_protocol(benchmark: Benchmark) -> Protocol:
    """For a benchmark of the user's own: everything that its columns allow. The reference is left out of the ranking."""
    queries = benchmark.queries[:]
    return Protocol(
        recall=(1, 5, 10, 50),
        subset_recall=(1, 2, 3) if all(queries["subset_ids"]) else (),
        mean_average_precision=(5, 10, 25, 50) if all(queries["answer_ids"]) else (),
        aspect_precision=10 if any(queries["aspects"]) and all(queries["answer_ids"]) else None,
        excludes_reference=True,
    )


def protocol_of(benchmark: Benchmark) -> Protocol:
    """The protocol of the benchmark's name, or [`own_protocol`] for a name that is none of the known ones.

    Raises:
        ValueError: if the benchmark has the name of a known one, but not the columns that its figures need.
    """
    protocol = PROTOCOLS.get(benchmark.name)
    if protocol is None:
        return own_protocol(benchmark)
    queries = benchmark.queries[:]
    needed = {"subset_ids": protocol.subset_recall, "answer_ids": protocol.mean_average_precision}
    for column, figures in needed.items():
        if figures and None not in queries["target_id"] and not all(queries[column]):
            raise ValueError(
                f"the benchmark calls itself {benchmark.name!r}, but not all of its queries have {column}; if it is another "
                "one, give it a name of its own in benchmark.json"
            )
    return protocol


@dataclass(frozen=True)
class Rankings:
    """Gallery positions, best first.

    Args:
        gallery (`torch.LongTensor` of shape `(num_queries, k)`): of the whole gallery, `None` where nothing asks for it.
        subsets (`torch.LongTensor` of shape `(num_queries, size)`): of each query's own subset, likewise; padded with -1.
    """

    gallery: torch.Tensor | None
    subsets: torch.Tensor | None


def rank(
    benchmark: Benchmark,
    protocol: Protocol,
    queries: torch.Tensor,
    gallery: torch.Tensor,
    depth: int | None = None,
    is_cosine: bool = True,
) -> Rankings:
    """Ranks as the protocol asks.

    Args:
        benchmark: whose queries and gallery they are.
        protocol: what is to be measured.
        queries (`torch.Tensor` of shape `(num_queries, dim)`).
        gallery (`torch.Tensor` of shape `(num_gallery, dim)`).
        depth: how many of the gallery to rank; by default what the figures need.
        is_cosine: whether a score is a cosine, or the product of query and gallery item as they are.

    Raises:
        ValueError: if the gallery has one image only.
    """
    if len(gallery) < 2:
        raise ValueError(f"{benchmark.name} has a gallery of {len(gallery)} image; there is nothing to rank")
    place, columns = benchmark.positions(), benchmark.queries
    depth = depth or max((*protocol.recall, *protocol.mean_average_precision, protocol.aspect_precision or 0), default=0)
    excluded = [place[name] for name in columns["reference_id"][:]] if protocol.excludes_reference else None
    if excluded is not None:
        depth = min(depth, len(gallery) - 1)  # what is excluded must not come last, either
    subsets = None
    if protocol.subset_recall:
        members = [[place[name] for name in names] for names in columns["subset_ids"][:]]
        subsets = rank_subsets(queries, gallery, members, is_cosine)
    return Rankings(rank_gallery(queries, gallery, depth, excluded, is_cosine) if depth else None, subsets)


def measure(benchmark: Benchmark, protocol: Protocol, rankings: Rankings) -> dict[str, float]:
    """The protocol's figures in percent, by name; empty where the split keeps its targets secret."""
    place, columns = benchmark.positions(), benchmark.queries
    targets = columns["target_id"][:]
    if None in targets:
        return {}
    targets = [place[name] for name in targets]
    answers = [[place[name] for name in names] for names in columns["answer_ids"][:]]
    figures = {f"R@{k}": recall_at_k(rankings.gallery, targets, k) for k in protocol.recall}
    figures |= {f"subset R@{k}": recall_at_k(rankings.subsets, targets, k) for k in protocol.subset_recall}
    precision = {f"mAP@{k}": mean_average_precision_at_k(rankings.gallery, answers, k) for k in protocol.mean_average_precision}
    figures |= precision
    if protocol.aspect_precision:
        carried_by = columns["aspects"][:]
        for aspect in sorted({aspect for aspects in carried_by for aspect in aspects}):
            rows = [row for row, aspects in enumerate(carried_by) if aspect in aspects]
            value = mean_average_precision_at_k(
                rankings.gallery[rows], [answers[row] for row in rows], protocol.aspect_precision
            )
            figures[f"mAP@{protocol.aspect_precision} {aspect}"] = value
    return {name: round(100 * value, 4) for name, value in figures.items()}


def mean_of_parts(parts: list[dict[str, float]]) -> dict[str, float]:
    """The unweighted mean over categories, of the figures that all of them have."""
    shared = [name for name in parts[0] if all(name in part for part in parts)]
    return {name: round(sum(part[name] for part in parts) / len(parts), 4) for name in shared}
