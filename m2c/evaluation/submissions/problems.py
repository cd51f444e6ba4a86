"""What can be wrong with any prediction file, whichever the benchmark, in sentences."""

from collections import Counter
from collections.abc import Iterable, Sequence
from reprlib import repr as shorten


def query_problems(given: Iterable[str], expected: Sequence[str], rule: str) -> list[str]:
    """One sentence for each query that is missing or unknown.

    Args:
        given: the ids of the predictions.
        expected: the ids of the annotations, in their order.
        rule: which ids there are to be, for the sentence about an unknown one.
    """
    found, known = set(given), set(expected)
    problems = []
    if known and not found & known:
        problems.append(f"none of the {len(known)} queries is in the file; does it belong to another split or benchmark?")
    problems += [f"query {query}: is missing" for query in expected if query not in found]
    return problems + [f"query {shorten(query)}: is unknown; {rule}" for query in given if query not in known]


def ranking_problems(ranking: object, length: int | None, kind: type, noun: str) -> list[str]:
    """What is wrong with one query's ranking as a list, without the name of the query.

    Args:
        ranking: whatever the file holds.
        length: how many entries there must be; `None` if that cannot be said.
        kind: the exact type of an entry, so that `True` is no integer.
        noun: what the entries are, in the plural.
    """
    if not isinstance(ranking, list):
        return [f"holds {shorten(ranking)} instead of a list of {noun}"]
    problems = []
    if length is not None and len(ranking) != length:
        problems.append(f"lists {len(ranking)} {noun} instead of exactly {length}")
    if strangers := [entry for entry in ranking if type(entry) is not kind]:
        problems.append(f"lists {named(strangers)}; its entries must be {noun}")
    if repeated := [entry for entry, count in Counter(entries_of(ranking, kind)).items() if count > 1]:
        problems.append(f"lists {named(repeated)} more than once")
    return problems


def entries_of(ranking: object, kind: type) -> list:
    """The entries of the right type, as far as the ranking is a list."""
    return [entry for entry in ranking if type(entry) is kind] if isinstance(ranking, list) else []


def named(entries: Iterable) -> str:
    """The first three entries and how many more there are: a sentence has to stay readable with 50 of them."""
    entries = list(entries)
    more = f" and {len(entries) - 3} more" if len(entries) > 3 else ""
    return ", ".join(map(shorten, entries[:3])) + more


def numbered(entries: Iterable) -> dict:
    """A number for each different entry: the metrics compare integers of 64 bits, and a file may hold anything."""
    return {entry: number for number, entry in enumerate(dict.fromkeys(entries))}


def summary(problems: Sequence[str], limit: int = 20) -> str:
    """The first problems, one a line, and how many more there are."""
    more = [f"... and {len(problems) - limit} more"] if len(problems) > limit else []
    return "\n".join([*problems[:limit], *more])
