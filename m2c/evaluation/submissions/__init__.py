"""Prediction files of CIRR and CIRCO: what the benchmarks' servers do with them, here and without a model."""

from .circo import score_circo, validate_circo
from .cirr import score_cirr, validate_cirr
from .record import score, table
from .writing import write_circo_submission, write_cirr_submission


__all__ = [
    "score",
    "score_circo",
    "score_cirr",
    "table",
    "validate_circo",
    "validate_cirr",
    "write_circo_submission",
    "write_cirr_submission",
]
