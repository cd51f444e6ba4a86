"""The code in every kind of card runs as it stands, in a fresh process that has nothing but the public libraries."""

import json
import subprocess
import sys
import textwrap

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from hub_cards import render_card
from m2c.checkpoints import load_model, load_processor


KINDS = ("base", "full", "adapter", "merged", "converted")
# Runs the blocks of each card in a namespace of their own, and keeps what they computed.
RUNNER = """
    import json, sys
    from pathlib import Path

    class Blocker:
        def find_spec(self, name, *_):
            if name.split(".")[0] in ("m2c", "modeling_m2c", "processing_m2c", "hub_cards"):
                raise ModuleNotFoundError(name)

    sys.meta_path.insert(0, Blocker())
    from safetensors.torch import save_file

    import torch

    def in_order(answers):
        return torch.tensor([answer["score"] for answer in sorted(answers, key=lambda answer: answer["index"])])

    features = {}
    for name, code in json.loads(Path("blocks.json").read_text()).items():
        namespace = {}
        exec(compile(code, name, "exec"), namespace)
        namespace["answers"] = in_order(namespace.get("answers", []))
        kept = {"query", "gallery", "answers", "similarities"} & namespace.keys()
        features |= {f"{name} {key}": namespace[key].detach().contiguous() for key in kept}
    save_file(features, "features.safetensors")
"""


@pytest.fixture(scope="module")
def ran(folders, home, code_blocks, tmp_path_factory):
    """Features that the blocks of all cards computed, of repositories by name and of one folder, and what was printed."""
    place = tmp_path_factory.mktemp("ran")
    blocks = {}
    for kind in KINDS:
        blocks[kind] = "\n".join(code_blocks(str(render_card(folders[kind], f"you/{kind}"))))
    for kind in ("full", "merged"):
        code = "\n".join(code_blocks(str(render_card(folders[kind]))))
        blocks[f"{kind} folder"] = f"import os\nos.chdir({str(folders[kind])!r})\n{code}\nos.chdir({str(place)!r})\n"
    (place / "blocks.json").write_text(json.dumps(blocks))
    environment = {"PATH": "", "HF_HOME": str(home), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", textwrap.dedent(RUNNER)]
    result = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=place)
    assert result.returncode == 0, result.stderr
    return load_file(place / "features.safetensors"), result.stdout.strip().splitlines()


@torch.no_grad()
@pytest.mark.parametrize("kind", KINDS)
def test_the_lines_do_what_they_say(ran, folders, kind):
    """They give the features of the model as this package loads it, and a ranking of the whole gallery."""
    features, printed = ran
    model, processor = load_model(str(folders[kind])).eval(), load_processor(str(folders[kind]))
    pictures = [Image.new("RGB", (224, 224), color) for color in ("red", "green", "blue")]
    query = model.get_composed_features(**processor(images=pictures[0], text="is blue", return_tensors="pt")).pooler_output
    gallery = model.get_image_features(**processor(images=pictures, return_tensors="pt")).pooler_output
    torch.testing.assert_close(features[f"{kind} query"], query, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(features[f"{kind} gallery"], gallery, atol=1e-5, rtol=1e-4)
    scores = torch.cosine_similarity(query, gallery)
    assert str(scores.argsort(descending=True)) in printed
    if kind != "adapter":
        torch.testing.assert_close(features[f"{kind} answers"], scores, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(features[f"{kind} similarities"], scores[None], atol=1e-5, rtol=1e-4)


def test_kinds_differ_where_they_should(ran):
    features, _ = ran
    for other in ("adapter", "merged", "full folder", "merged folder"):
        torch.testing.assert_close(features[f"{other} query"], features["full query"], atol=1e-5, rtol=1e-4)
    assert "merged folder similarities" in features and "full folder similarities" not in features
    for other in ("base", "converted"):
        assert (features[f"{other} query"] - features["full query"]).abs().max() > 1e-2
        assert torch.equal(features[f"{other} gallery"], features["full gallery"])


def test_a_model_without_a_tokenizer_says_so(copy_of, code_blocks):
    folder = copy_of("converted")
    (folder / "processor_config.json").unlink()
    text = str(render_card(folder))
    assert "no `AutoProcessor`" in text and not code_blocks(text)
