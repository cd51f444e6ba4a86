"""Finds the captioner that a name stands for."""

from transformers import AutoProcessor, ProcessorMixin

from m2c.retrieval.chat import load_chat
from m2c.retrieval.chat.local import LocalChat
from m2c.retrieval.pretrained import Pretrained
from m2c.retrieval.scenes import CAPTIONER_PATH

from .by_chat import CaptionsByChat
from .captioner import Captioner, CaptionSettings
from .image_to_text import ImageToText


def load_captioner(
    name: str,
    settings: CaptionSettings | None = None,
    server: str | None = None,
    batch_size: int = 16,
    concurrency: int = 8,
    revision: str | None = None,
) -> Captioner:
    """A captioner: one of transformers, in bfloat16 if it runs on a GPU; or a model on a server.

    The weights are read when the first caption is to be written.

    Args:
        name: a repository of the Hub or a folder with a model that `AutoModelForImageTextToText` loads; one with a chat
            template is asked in conversations. `"scenes"` is the tiny one that ships with this package. With a server, a model
            that takes pictures, as the server calls it.
        settings: how captions are drawn.
        server: see [`m2c.retrieval.chat.load_chat`].
        batch_size: pictures at a time; of a model that chats, conversations.
        concurrency: of a server: requests at a time, of all processes together.
        revision: of the repository: a branch, a tag or a commit; by default the newest.

    Raises:
        ValueError: if there is no such model, or it is of another kind, or the settings do not suit it.
    """
    settings = settings or CaptionSettings()
    if server is not None:
        return CaptionsByChat(load_chat(name, server, concurrency, revision=revision), settings, batch_size)
    pretrained = Pretrained(name, "captioner", revision, CAPTIONER_PATH if name == "scenes" else None)
    if not pretrained.sees:
        raise pretrained.unusable(f"a {pretrained.config.model_type!r} model does not describe pictures")
    processor = pretrained.read(AutoProcessor.from_pretrained)
    if getattr(processor, "chat_template", None):
        return CaptionsByChat(LocalChat(pretrained, processor, batch_size), settings, batch_size)
    if not isinstance(processor, ProcessorMixin):
        raise pretrained.unusable("it has no processor of images and texts")
    return ImageToText(pretrained, processor, settings, batch_size)
