"""The words of f2: the modification text, and what will be new in the image."""

from collections.abc import Sequence


ADDED = ". And the photo should have {added}."
# The tokenizer of scenes knows no other words.
BENCHMARK_ADDED = {"scenes": " and has {added}"}


def with_added(modifications: Sequence[str], added: Sequence[str], benchmark: str) -> list[str]:
    """Modification texts, each followed by what an editor thinks will be new, if it thinks of anything.

    Args:
        modifications: one for each query.
        added: a noun phrase for each, or `""`.
        benchmark: its name, as it may speak differently.
    """
    sentence = BENCHMARK_ADDED.get(benchmark, ADDED)
    return [
        f"{text.rstrip(' .')}{sentence.replace('{added}', phrase)}" if phrase and text.strip() else text
        for text, phrase in zip(modifications, added, strict=True)
    ]
