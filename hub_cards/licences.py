"""The licence of the CLIP underneath and of pictures, as far as they are known."""

from collections.abc import Sequence

from huggingface_hub import ModelCard
from huggingface_hub.errors import HTTPError
from huggingface_hub.utils import HFValidationError, validate_repo_id
from yaml import YAMLError


# The tiny CLIP of the scenes world is a part of this package.
SHIPPED = {"scenes": "apache-2.0"}
# The weights of OpenCLIP are under its MIT licence, say its authors: https://github.com/mlfoundations/open_clip/issues/177
OPENCLIP = "laion/CLIP-ViT-"


def licence_of(name: str | None) -> str | None:
    """The licence of a model by its Hub identifier (`"mit"`), or `None` if it does not state one or cannot be asked.

    Args:
        name: `"scenes"`, or a repository of the Hub, whose card is read if it can be reached or lies in the cache. Of
            anything else nothing is known.
    """
    if name in SHIPPED:
        return SHIPPED[name]
    if not is_on_hub(name):
        return None
    if name.startswith(OPENCLIP):
        return "mit"
    try:
        licence = ModelCard.load(name, ignore_metadata_errors=True).data.license
    # A connection that is lost in the middle of an answer is no OSError.
    except (HTTPError, OSError, ValueError, YAMLError):
        return None
    return licence if isinstance(licence, str) else None


def is_on_hub(name: str | None) -> bool:
    """Whether a name in a record is a repository's: of local folders the record keeps the last part only."""
    if name is None or "/" not in name:
        return False
    try:
        validate_repo_id(name)
    except HFValidationError:
        return False
    return True


def licence_of_pictures(datasets: Sequence[str]) -> str | None:
    """That of the pictures which a run on these data sets left. It is known of drawn scenes alone, as a licence of weights says
    nothing of photographs."""
    return SHIPPED["scenes"] if datasets and set(datasets) == {"scenes"} else None
