"""Language models that write the caption of the edited image, and name the objects that an edit adds."""

from .editor import Editor
from .fill import edit
from .prompts import EditRequest


__all__ = ["EditRequest", "Editor", "edit"]
