"""Complementary retrieval (CVSI): a composed query, and what a captioner and a language model say of the edited image."""

from .features import ComplementaryFeatures, mean_features
from .fusion import CAPTION_FEATURES, PRESETS, Fusion, fusion_for
from .prompting import with_added
from .retriever import ComplementaryRetriever
from .tuning import tune_fusion
from .writer import FORMS, Edits, Writer


__all__ = [
    "CAPTION_FEATURES",
    "FORMS",
    "PRESETS",
    "ComplementaryFeatures",
    "ComplementaryRetriever",
    "Edits",
    "Fusion",
    "Writer",
    "fusion_for",
    "mean_features",
    "tune_fusion",
    "with_added",
]
