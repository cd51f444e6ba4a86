"""The one form that every benchmark of composed retrieval takes here."""

from collections.abc import Callable
from dataclasses import dataclass, field

from datasets import Dataset, Features, Image, List, Value
from PIL.Image import Image as Picture

from m2c.data.loading import read_image, undecoded


TEXT = Value("string")
QUERY_FEATURES = Features(
    {
        "id": TEXT,
        "reference_id": TEXT,
        "captions": List(TEXT),
        "target_id": TEXT,
        "subset_ids": List(TEXT),
        "answer_ids": List(TEXT),
        "aspects": List(TEXT),
        "shared_concept": TEXT,
    }
)
GALLERY_FEATURES = Features({"id": TEXT, "image": Image(), "box": List(Value("float64"))})


@dataclass
class Benchmark:
    """Queries and gallery of one benchmark, one split, one category.

    Args:
        name: `"cirr"`, `"circo"`, `"fashioniq"`, `"genecis"`, `"scenes"`, or a name of the owner's choice.
        split: of the benchmark.
        category: of FashionIQ (`"dress"`) or GeneCIS (`"focus_attribute"`); `None` where there is one only.
        gallery: every image once, with the columns of `GALLERY_FEATURES`: `id`; `image`, decoded when it is read; `box`, the
            part of the picture that counts as [x, y, width, height] in pixels, or nothing for all of it.
        queries: with the columns of `QUERY_FEATURES`: `id`; `reference_id`, an id of the gallery; `captions`, the modification
            text, or the several ones of FashionIQ; `target_id`, `None` where it is secret; `subset_ids`, the images that subset
            recall ranks, without the reference; `answer_ids`, every correct answer, the target first; `aspects`, by which
            figures are also reported; `shared_concept` of CIRCO, `None` elsewhere. Lists may be empty.
        variant: which of FashionIQ's galleries it is, `"original"` or `"val"`; `None` where there is one only.
        left_out: what was missing and is left out, by kind; every result carries it.
        crop: how a picture is cut to its box, where there are boxes.
    """

    name: str
    split: str
    gallery: Dataset
    queries: Dataset
    category: str | None = None
    variant: str | None = None
    left_out: dict[str, int] = field(default_factory=dict)
    crop: Callable[[Picture, list[float]], Picture] | None = None

    def __post_init__(self):
        self._undecoded = undecoded(self.gallery, {"image"})

    def picture(self, position: int) -> Picture:
        """The image at a position of the gallery, upright RGB, cut to its box.

        Raises:
            ValueError: if it cannot be read, or its box cannot be cut out; the message names the file, or the image's id.
        """
        row = self._undecoded[position]
        return self.cut(read_image(row, "image", position), row["id"], row["box"])

    def cut(self, picture: Picture, name: str, box: list[float]) -> Picture:
        """The part of a picture that counts: all of it where there is no box.

        Raises:
            ValueError: if the box cannot be cut out; the message names the image by its id, `name`.
        """
        try:
            return self.crop(picture, box) if box else picture
        except ValueError as error:
            raise ValueError(f"image {name!r}: {error}") from error

    def positions(self) -> dict[str, int]:
        """Where in the gallery each id stands."""
        return {name: position for position, name in enumerate(self.gallery["id"][:])}


def make_query(id: str, reference_id: str, captions: list[str], target_id: str | None, **columns) -> dict:
    """A row of `QUERY_FEATURES`; columns that are not given are empty."""
    empty = {"subset_ids": [], "answer_ids": [], "aspects": [], "shared_concept": None}
    return {"id": id, "reference_id": reference_id, "captions": captions, "target_id": target_id, **empty, **columns}
