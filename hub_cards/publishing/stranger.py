"""Run as a script, never imported: what somebody without this package gets from a model.

    python -P stranger.py NAME ARGUMENTS_OF_MODEL ARGUMENTS_OF_PROCESSOR OUTPUT

Arguments are JSON. Writes features of drawn images and a few words, the same in every process, to the safetensors file OUTPUT.
If it fails, the last line on the standard output says why.
"""

import json
import sys


# Seconds without a sign of the Hub.
PATIENCE = 100.0


def main(name: str, of_model: str, of_processor: str, output: str) -> None:
    import torch
    from huggingface_hub.utils import get_session
    from PIL import Image
    from safetensors.torch import save_file
    from transformers import AutoModel, AutoProcessor

    # The client would wait for ever.
    get_session().timeout = PATIENCE
    model = AutoModel.from_pretrained(name, trust_remote_code=True, dtype=torch.float32, **json.loads(of_model)).eval()
    processor = AutoProcessor.from_pretrained(name, trust_remote_code=True, **json.loads(of_processor))
    images = [Image.linear_gradient("L").convert("RGB"), Image.radial_gradient("L").convert("RGB").resize((99, 40))]
    queries = processor(images=images, text=["is brighter", ""], return_tensors="pt")
    gallery, texts = processor(images=images, return_tensors="pt"), processor(text=["a gradient"], return_tensors="pt")
    with torch.no_grad():
        features = {
            "composed": model.get_composed_features(**queries).pooler_output,
            "images": model.get_image_features(**gallery).pooler_output,
            "texts": model.get_text_features(**texts).pooler_output,
        }
    save_file({kind: tensor.contiguous() for kind, tensor in features.items()}, output)


if __name__ == "__main__":
    # Cannot be imported from here on.
    sys.modules.update(dict.fromkeys(["m2c", "modeling_m2c", "processing_m2c", "hub_cards"]))
    try:
        main(*sys.argv[1:])
    except Exception as error:
        print(" ".join(f"{type(error).__name__}: {error}".split()))
        raise
