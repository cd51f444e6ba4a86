"""Every benchmark by its name."""

from pathlib import Path

from . import circo, cirr, fashioniq, genecis
from .files import check_choice
from .form import Benchmark
from .own import load_own


# Splits and categories by benchmark; of one's own there is what the folder says.
SPLITS = {
    "cirr": cirr.SPLITS,
    "circo": circo.SPLITS,
    "fashioniq": fashioniq.SPLITS,
    "genecis": ("val",),
    "own": (),
}
CATEGORIES = {"fashioniq": fashioniq.CATEGORIES, "genecis": genecis.TASKS}


def load_benchmark(
    name: str,
    root: str | Path,
    split: str | None = None,
    category: str | None = None,
    gallery: str = "original",
) -> list[Benchmark]:
    """The parts of a benchmark that are measured apart. Whether the images are there is not checked: see [`check_benchmark`].

    Args:
        name: `"cirr"`, `"circo"`, `"fashioniq"`, `"genecis"`, or `"own"` for the form of [`load_own`].
        root: folder of the benchmark, as its owners or others pass it on.
        split: `"val"` unless named; of one's own benchmark, the one it has.
        category: of FashionIQ, or task of GeneCIS; all of them, in their usual order, unless named.
        gallery: of FashionIQ, `"original"` or `"val"`.

    Raises:
        ValueError: if there is no such benchmark, split, category or gallery, or its files are not there or not of the form.
    """
    check_choice("benchmark", name, list(SPLITS))
    if category is not None:
        if name not in CATEGORIES:
            raise ValueError(f"{name} has no category {category!r}; categories are FashionIQ's, and GeneCIS's tasks")
        check_choice(f"category of {name}", category, CATEGORIES[name])
    if name == "fashioniq":
        check_choice(f"gallery of {name}", gallery, fashioniq.GALLERIES)
    elif gallery != "original":
        raise ValueError(f"{name} has no gallery {gallery!r}; the choice of a gallery is FashionIQ's")
    if name == "own":
        benchmark = load_own(root)
        check_choice(f"split of {root}", split or benchmark.split, [benchmark.split])
        return [benchmark]
    split = split or "val"
    check_choice(f"split of {name}", split, SPLITS[name])
    if name == "cirr":
        return [cirr.load_cirr(root, split)]
    if name == "circo":
        return [circo.load_circo(root, split)]
    categories = [category] if category else CATEGORIES[name]
    if name == "genecis":
        return [genecis.load_genecis(root, task) for task in categories]
    return [fashioniq.load_fashioniq(root, split, each, gallery) for each in categories]
