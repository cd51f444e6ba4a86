"""The model card: what the model is, how to use it, how it came to be, and what was measured."""

from pathlib import Path

from huggingface_hub import ModelCard, ModelCardData
from huggingface_hub.utils import validate_repo_id

from m2c.whole_files import write_whole

from .entries import model_index
from .evaluations import RECORDS, read_evaluations
from .licences import is_on_hub, licence_of, licence_of_pictures
from .rendering import render
from .repository import METHODS, Repository, read_repository
from .signature import sign


# By it a repository of ours is known.
OUR_TAG = "m2c"
TAGS = ["composed-image-retrieval", "zero-shot", "clip", OUR_TAG]
# The Hub knows no task of composed retrieval; of those it knows this is what the model does.
PIPELINE_TAG = "image-feature-extraction"


def render_card(
    folder: str | Path, repo_id: str | None = None, licence: str | None = None, pictures_licence: str | None = None
) -> ModelCard:
    """The card of a folder with a model, of any kind: what stage 1 or 2 wrote, an adapter alone, merged or converted weights.

    All that it says is read from the folder: configuration, `training.json` or `conversion.json`, the records that
    [`write_results`] put there, and the pictures `retrieval.png` and `learning_curves.png`. What they do not tell, the card
    calls missing. It holds no absolute path.

    Args:
        folder: of the model.
        repo_id: where it will be published; `None` for a card that stays in its folder.
        licence: of the repository, by its Hub identifier (`"apache-2.0"`). By default that of the CLIP underneath, if it is
            known (see [`licence_of`]) and nothing was converted; else the card calls it not stated.
        pictures_licence: of the pictures in it. By default that of drawn scenes, if nothing else was trained on; else the card
            calls it not stated.

    Raises:
        ValueError: if there is no model in the folder, a record is damaged, or `repo_id` is no name of a repository.
    """
    if repo_id is not None:
        validate_repo_id(repo_id)
    model, evaluations = read_repository(folder), read_evaluations(folder)
    clip_licence = licence_of(model.clip)
    # Of converted weights the authors decide, who may have chosen another one.
    is_inherited = licence is None and clip_licence is not None and not model.conversion
    licence = clip_licence if is_inherited else licence
    method = METHODS[model.method]
    data = _metadata(model, licence)
    if results := model_index(evaluations):
        data.model_name, data.eval_results = (repo_id or "M2C").rpartition("/")[2], results
    text = render(
        "model_card.md",
        model=model,
        method=method,
        titles=_titles(method["title"]),
        repo_id=repo_id,
        licence=licence,
        is_inherited=is_inherited,
        pictures_licence=pictures_licence or licence_of_pictures(model.datasets),
        clip_licence=clip_licence,
        evaluations=evaluations,
        record_path=lambda evaluation: f"{RECORDS}/{evaluation.name}.json",
        skips_last_block=_skips_last_block(model),
        vision=model.config.get("vision_config") or {},
        text=model.config.get("text_config") or {},
    )
    return ModelCard(sign(f"---\n{data.to_yaml()}\n---\n\n{text}"))


def write_card(
    folder: str | Path, repo_id: str | None = None, licence: str | None = None, pictures_licence: str | None = None
) -> Path:
    """Writes [`render_card`] to `README.md` in the folder, and returns its path. Raises as it does."""
    path = Path(folder, "README.md")
    write_whole(path, str(render_card(folder, repo_id, licence, pictures_licence)))
    return path


def _metadata(model: Repository, licence: str | None) -> ModelCardData:
    relation = "adapter" if model.kind == "adapter" else "finetune"
    return ModelCardData(
        library_name="transformers",
        pipeline_tag=PIPELINE_TAG,
        license=licence,
        tags=TAGS + ["sentence-transformers"] * ("sentence-transformers" in model.works_with),
        base_model=model.base_on_hub,
        base_model_relation=relation if model.base_on_hub else None,
        datasets=list(dict.fromkeys(filter(is_on_hub, model.datasets))) or None,
    )


def _titles(method: str) -> dict[str, str]:
    return {
        "base": f"Composed image retriever ({method}, stage 1)",
        "full": "Composed image retriever (M2C, stages 1 and 2)",
        "adapter": "Adapter of a composed image retriever (M2C, stage 2)",
        "merged": "Composed image retriever (M2C, stages 1 and 2 merged)",
        "converted": f"Composed image retriever ({method}, converted)",
    }


def _skips_last_block(model: Repository) -> bool:
    layers = model.config.get("injection_layers")
    return bool(layers) and max(layers) < model.config["text_config"]["num_hidden_layers"] - 1
