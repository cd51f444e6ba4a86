"""The scenes world as a benchmark like the others."""

from datasets import Dataset, DatasetDict

from m2c.data.scenes import composed_retrieval

from .form import GALLERY_FEATURES, QUERY_FEATURES, Benchmark, make_query


def load_scenes(num_queries: int = 500, seed: int = 0) -> Benchmark:
    """The test set that [`m2c.data.scenes.composed_retrieval`] draws."""
    return as_benchmark(composed_retrieval(num_queries, seed))


def as_benchmark(data: DatasetDict) -> Benchmark:
    """What [`m2c.data.scenes.composed_retrieval`] returned, in the common form; ids are gallery positions, as text."""
    gallery = data["gallery"].add_column("box", [[]] * len(data["gallery"])).cast(GALLERY_FEATURES)
    queries = [
        make_query(
            id=str(number),
            reference_id=str(row["reference_id"]),
            captions=[row["modification"]],
            target_id=str(row["target_id"]),
            subset_ids=[str(position) for position in row["subset_ids"]],
            answer_ids=[str(position) for position in row["answer_ids"]],
        )
        for number, row in enumerate(data["queries"])
    ]
    return Benchmark("scenes", "test", gallery, Dataset.from_list(queries, features=QUERY_FEATURES))
