"""CIRR, CIRCO, FashionIQ, GeneCIS and anyone's own benchmark, from the files as their owners ship them, in one form."""

from .circo import load_circo
from .cirr import load_cirr
from .fashioniq import load_fashioniq
from .form import GALLERY_FEATURES, QUERY_FEATURES, Benchmark, make_query
from .genecis import load_genecis
from .load import load_benchmark
from .missing import check_benchmark
from .own import load_own, write_benchmark


__all__ = [
    "GALLERY_FEATURES",
    "QUERY_FEATURES",
    "Benchmark",
    "check_benchmark",
    "load_benchmark",
    "load_circo",
    "load_cirr",
    "load_fashioniq",
    "load_genecis",
    "load_own",
    "make_query",
    "write_benchmark",
]
