"""Files beside model and processor by which other libraries load a retriever: transformers' pipeline, sentence-transformers."""

import json
from pathlib import Path

from transformers.dynamic_module_utils import custom_object_save

from modeling_m2c import M2CConfig
from modeling_m2c.pipeline_m2c import ComposedImageRetrievalPipeline


PIPELINES = {
    "composed-image-retrieval": {
        "impl": f"pipeline_m2c.{ComposedImageRetrievalPipeline.__name__}",
        "pt": ["AutoModel"],
        "type": "multimodal",
    }
}
SENTENCE_TRANSFORMERS_FILES = {
    "modules.json": [
        {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.base.modules.transformer.Transformer"},
        {"idx": 1, "name": "1", "path": "1_Normalize", "type": "sentence_transformers.base.modules.normalize.Normalize"},
    ],
    "sentence_bert_config.json": {
        "transformer_task": "feature-extraction",
        "modality_config": {
            "text": {"method": "get_text_features", "method_output_name": "pooler_output"},
            "image": {"method": "get_image_features", "method_output_name": "pooler_output"},
            "image+text": {"method": "get_composed_features", "method_output_name": "pooler_output"},
        },
        "module_output_name": "sentence_embedding",
    },
    "config_sentence_transformers.json": {
        "model_type": "SentenceTransformer",
        "prompts": {"query": "", "document": ""},
        "default_prompt_name": None,
        "similarity_fn_name": "cosine",
    },
}


def announce_pipeline(config: M2CConfig) -> None:
    """Makes the configuration name the pipeline, for `transformers.pipeline`. To be done before it is saved."""
    config.custom_pipelines = PIPELINES


def write_companion_files(directory: Path) -> None:
    """Writes the code of the pipeline, and the three files by which `SentenceTransformer(repository)` loads the model."""
    custom_object_save(ComposedImageRetrievalPipeline, directory)
    for name, content in SENTENCE_TRANSFORMERS_FILES.items():
        (directory / name).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
