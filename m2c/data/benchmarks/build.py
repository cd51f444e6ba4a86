"""Puts queries and images together to a `Benchmark`, once every name in the queries is known to be an image of the gallery."""

from collections.abc import Sequence
from pathlib import Path

from datasets import Dataset

from .form import GALLERY_FEATURES, QUERY_FEATURES, Benchmark


def items_of(path: Path, size: int) -> list[str]:
    """How messages call the items of a JSON list."""
    return [f"item {index} of {path}" for index in range(size)]


def check_queries(queries: list[dict], gallery_ids: Sequence[str], places: list[str]) -> None:
    """Checks that the ids of queries are unique, and that every image they name is in the gallery.

    Args:
        queries: rows of `QUERY_FEATURES`.
        gallery_ids: of every image.
        places: where each query comes from, for messages.

    Raises:
        ValueError: if not; the message names place, key and id.
    """
    gallery_ids, seen = set(gallery_ids), {}
    for query, place in zip(queries, places):
        if query["id"] in seen:
            raise ValueError(f"{place}: the query id {query['id']!r} is also that of {seen[query['id']]}")
        seen[query["id"]] = place
        for key in ("reference_id", "target_id", "subset_ids", "answer_ids"):
            names = query[key] if isinstance(query[key], list) else [query[key]]
            for name in names:
                if name is not None and name not in gallery_ids:
                    raise ValueError(f"{place}: {name!r} ({key}) is not among the {len(gallery_ids)} images of the gallery")


def build_benchmark(
    name: str,
    split: str,
    images: dict[str, str],
    queries: list[dict],
    source: Path,
    boxes: dict[str, list[float]] | None = None,
    **fields,
) -> Benchmark:
    """A benchmark from plain values. No image file is touched.

    Args:
        name: as in [`Benchmark`].
        split: as in [`Benchmark`].
        images: the path of each image of the gallery, by its id, in the gallery's order.
        queries: rows of `QUERY_FEATURES`.
        source: the JSON file that lists the queries, for messages.
        boxes: of the gallery's images that have one, by id.
        fields: further ones of [`Benchmark`].

    Raises:
        ValueError: if a query names an image that is not in the gallery, two have the same id, or there is none.
    """
    if not queries:
        raise ValueError(f"{source} has no queries")
    check_queries(queries, images, items_of(source, len(queries)))
    boxes = boxes or {}
    columns = {"id": list(images), "image": list(images.values()), "box": [boxes.get(image, []) for image in images]}
    return Benchmark(
        name,
        split,
        gallery=Dataset.from_dict(columns, features=GALLERY_FEATURES),
        queries=Dataset.from_list(queries, features=QUERY_FEATURES),
        **fields,
    )
