"""The card of a data set: triplets or pairs to train on, or a benchmark."""

from pathlib import Path

from huggingface_hub import DatasetCard, DatasetCardData
from huggingface_hub.utils import validate_repo_id

from m2c.whole_files import write_whole

from .dataset_folder import DatasetFolder, read_dataset_folder
from .model_card import OUR_TAG, PIPELINE_TAG
from .publishable import publishable
from .rendering import render
from .signature import sign


TAGS = ["composed-image-retrieval", OUR_TAG]
SIZES = {10**3: "n<1K", 10**4: "1K<n<10K", 10**5: "10K<n<100K", 10**6: "100K<n<1M", 10**7: "1M<n<10M", 10**8: "10M<n<100M"}


def render_dataset_card(
    folder: str | Path, repo_id: str | None = None, licence: str | None = None, source: str | None = None
) -> DatasetCard:
    """The card of a folder with a data set: triplets or pairs, or a benchmark in the documented form.

    Args:
        folder: of the data set.
        repo_id: where it will be published; `None` for a card that stays in its folder.
        licence: of images and texts, by its Hub identifier; the card calls it not stated without.
        source: one or two sentences on where images and texts come from; the card calls it missing without.

    Raises:
        ValueError: if the folder is of no such form or damaged, or `repo_id` is no name of a repository.
    """
    if repo_id is not None:
        validate_repo_id(repo_id)
    data = read_dataset_folder(folder)
    metadata = DatasetCardData(
        license=licence,
        task_categories=[PIPELINE_TAG],
        tags=[*TAGS, data.kind],
        size_categories=[next((size for limit, size in SIZES.items() if data.rows < limit), "n>100M")],
        configs=_configs(data),
    )
    text = render("dataset_card.md", data=data, repo_id=repo_id, licence=licence, source=publishable(source))
    return DatasetCard(sign(f"---\n{metadata.to_yaml()}\n---\n\n{text}"))


def write_dataset_card(
    folder: str | Path, repo_id: str | None = None, licence: str | None = None, source: str | None = None
) -> Path:
    """Writes [`render_dataset_card`] to `README.md` in the folder, and returns its path. Raises as it does."""
    path = Path(folder, "README.md")
    write_whole(path, str(render_dataset_card(folder, repo_id, licence, source)))
    return path


def _configs(data: DatasetFolder) -> list[dict]:
    """What `datasets` finds in the folder. It reads files of one kind only: queries that lie beside pictures are left out."""
    if data.kind != "benchmark":
        files = [{"split": name, "path": split.pattern} for name, split in data.splits.items()]
        return [{"config_name": "default", "data_files": files}]
    if data.is_parquet:
        return [{"config_name": name, "data_files": f"{name}.parquet"} for name in ("gallery", "queries")]
    return [{"config_name": "gallery", "data_dir": "gallery"}]
