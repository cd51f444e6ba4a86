"""What a captioner and an editor write for complementary retrieval."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from PIL.Image import Image

from m2c.retrieval.captioning import Captioner, caption
from m2c.retrieval.editing import Editor, EditRequest, edit
from m2c.retrieval.text_store import ADDED_OBJECTS, EDITED_CAPTION, TextStore


# How several captions of a reference become captions of the edited image: each is edited (as in the paper), or all of them are
# given to the editor together, which writes one (as in the released code).
FORMS = ("each", "joined")


@dataclass(frozen=True)
class Edits:
    """What an editor made of the queries.

    Args:
        edited: for each query one or more captions of the edited image.
        added: for each query a noun phrase for what is new in it, or `""`.
        failed: how many replies could not be used, by kind; captions are averaged over the others.
    """

    edited: list[list[str]]
    added: list[str]
    failed: dict[str, int]


@dataclass(frozen=True)
class Writer:
    """A captioner and an editor, and the store where their texts are found again.

    Args:
        captioner: writes captions of images.
        editor: rewrites captions.
        store: of texts.
        count: captions of an image.
        form: one of [`FORMS`].
        objects: whether the editor is also asked for the objects that are new, as in the paper, which the composed query then
            names.
        say: prints a line of progress.

    Raises:
        ValueError: if `form` is none, or `count` is below 1.
    """

    captioner: Captioner
    editor: Editor
    store: TextStore
    count: int = 15
    form: str = "each"
    objects: bool = True
    say: Callable[[str], None] = print

    def __post_init__(self):
        if self.form not in FORMS:
            raise ValueError(f"form is one of {', '.join(FORMS)}, not {self.form!r}")
        if self.count < 1:
            raise ValueError(f"an image needs at least one caption, not {self.count}")

    def captions(
        self, picture: Callable[[int], Image], digests: Sequence[str], names: Sequence[str] | None = None
    ) -> list[list[str]]:
        """Captions of images.

        Args:
            picture: gives the image at a position; asked only for those whose captions are not in the store.
            digests: of the images, by which their captions are found.
            names: of the images, for messages; their digests by default.

        Raises:
            ValueError: if an image cannot be read, or gets no caption.
        """
        return caption(self.store, self.captioner, picture, digests, self.count, names, self.say)

    def edits(self, captions: Sequence[Sequence[str]], modifications: Sequence[str]) -> Edits:
        """The captions as they would be after the modification, and what is new then.

        A blank modification changes nothing: no language model is asked.

        Args:
            captions: of the reference of each query.
            modifications: the modification text of each query.

        Raises:
            ValueError: if no caption of a query could be edited, after all others are stored; the message names the first.
        """
        asked = [query for query, text in enumerate(modifications) if text.strip()]
        edited = [list(own) for own in captions]
        requests, owners = [], []
        for query in asked:
            versions = [tuple(captions[query])] if self.form == "joined" else [(one,) for one in captions[query]]
            requests += [EditRequest(version, modifications[query]) for version in versions]
            owners += [query] * len(versions)
            edited[query] = []
        for query, reply in zip(owners, edit(self.store, self.editor, requests, EDITED_CAPTION, self.say)):
            edited[query] += [] if reply is None else [reply]
        added = self._added(captions, modifications, asked if self.objects else [])
        _refuse_without(edited, modifications)
        failed = {EDITED_CAPTION: len(requests) - sum(len(edited[query]) for query in asked), ADDED_OBJECTS: added.count(None)}
        return Edits(edited, [phrase or "" for phrase in added], {kind: count for kind, count in failed.items() if count})

    def _added(self, captions: Sequence[Sequence[str]], modifications: Sequence[str], asked: Sequence[int]) -> list[str | None]:
        """For each query what is new in it; `""` for those that are not asked about, `None` where no reply can be used."""
        added: list[str | None] = ["" for _ in captions]
        requests = [EditRequest(tuple(captions[query]), modifications[query]) for query in asked]
        for query, reply in zip(asked, edit(self.store, self.editor, requests, ADDED_OBJECTS, self.say)):
            added[query] = reply
        return added


def _refuse_without(edited: list[list[str]], modifications: Sequence[str]) -> None:
    empty = [query for query, own in enumerate(edited) if not own]
    if empty:
        raise ValueError(
            f"{len(empty)} of {len(edited)} queries have no usable reply of the language model, the first for the modification "
            f"{modifications[empty[0]]!r}; all others are stored. Ask for these more often (--editor_tries), or choose another "
            "editor"
        )
