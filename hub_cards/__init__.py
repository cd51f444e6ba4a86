"""Cards that go to the Hub with what was trained or converted."""

from .converted_card import write_converted_card
from .model_card import write_model_card


__all__ = ["write_converted_card", "write_model_card"]
