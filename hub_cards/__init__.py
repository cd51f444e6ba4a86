"""Cards for models and data sets, and what was measured, in the forms that the Hub reads."""

from .dataset_card import render_dataset_card, write_dataset_card
from .evaluations import read_evaluation
from .model_card import render_card, write_card
from .results import write_results


__all__ = ["read_evaluation", "render_card", "render_dataset_card", "write_card", "write_dataset_card", "write_results"]
