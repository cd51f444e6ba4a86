"""Runs a Space up to its first answers, as the Hub does: in a process that does not have this package."""

from pathlib import Path

from hub_cards.publishing.loading import why_it_fails


# Run in the folder of the Space. If it fails, the last line on the standard output says why.
VISIT = """
import sys
sys.modules.update(dict.fromkeys(["m2c", "modeling_m2c", "processing_m2c", "hub_cards"]))
try:
    import app
    from huggingface_hub.utils import get_session
    from search import load_searcher, read_settings
    get_session().timeout = 100.0
    settings = read_settings(app.FOLDER)
    searcher = load_searcher(app.FOLDER, settings["model"], settings["revision"])
    app.build(searcher, settings["examples"])
    searcher(searcher.pictures[0], "is red")
except Exception as error:
    print(" ".join(f"{type(error).__name__}: {error}".split()))
    raise
"""


def try_out(folder: Path) -> None:
    """Raises `ValueError` if the Space in a folder does not run; the message says why."""
    if reason := why_it_fails(["-c", VISIT], folder, GRADIO_ANALYTICS_ENABLED="False", PYTHONDONTWRITEBYTECODE="1"):
        raise ValueError(f"the Space does not run: {reason}")
