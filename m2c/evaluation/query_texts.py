"""The texts that a benchmark's queries ask."""

from datasets import Dataset


# What surrounds a caption of FashionIQ and is stripped before joining.
STRIPPED = ".?, "


def query_texts(queries: Dataset, joining: str, shared_concept: bool) -> list[list[str]]:
    """The modification texts of the queries, in one or more versions whose features are to be averaged.

    Args:
        queries: of a benchmark.
        joining: one of [`m2c.conventions.JOININGS`], for queries with several captions.
        shared_concept: whether CIRCO's shared concept is put behind the text, as in "has two dogs, a park".

    Returns:
        A list for each version, with a text for each query.
    """
    captions = [[caption.strip(STRIPPED) for caption in row] if len(row) > 1 else row for row in queries["captions"]]
    concepts = [f", {concept}" if shared_concept and concept else "" for concept in queries["shared_concept"]]
    forward, backward = captions, [row[::-1] for row in captions]
    versions = {"first-second": [forward], "second-first": [backward], "both": [forward, backward]}[joining]
    if forward == backward:
        versions = [forward]
    return [[" and ".join(row) + concept for row, concept in zip(version, concepts)] for version in versions]
