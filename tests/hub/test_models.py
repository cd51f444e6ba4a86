"""M2C models and adapters: published as folders, loaded by `transformers` and `peft`, from the Hub and from the cache."""

import json
from dataclasses import replace
from functools import partial

import pytest
import torch

from m2c.checkpoints import load_model, save_adapter, save_retriever

from ..test_checkpoints import add_adapter, features
from .user_code import push


@pytest.fixture
def folders(model, processor, tmp_path) -> dict:
    """Of stage 1 the folder, of stage 2 that with everything and that with the adapter alone."""
    paths = {name: tmp_path / name for name in ("stage1", "full", "adapter")}
    save_retriever(model, processor, paths["stage1"])
    trained = add_adapter(load_model(str(paths["stage1"])), str(paths["stage1"]))
    save_retriever(trained, processor, paths["full"])
    save_adapter(trained, processor, paths["adapter"], base=str(paths["stage1"]))
    return paths


def name_base(folder, base: str) -> None:
    config = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps({**config, "base_model_name_or_path": base}))


def embed(repo_id, revision="main", trust_remote_code=True):
    """The features of `features`, by whoever has nothing but the name of a repository."""
    import importlib

    import torch
    from PIL import Image
    from transformers import AutoModel, AutoProcessor

    if not trust_remote_code:
        importlib.import_module("m2c")
    model = AutoModel.from_pretrained(repo_id, revision=revision, trust_remote_code=trust_remote_code)
    processor = AutoProcessor.from_pretrained(repo_id, revision=revision, trust_remote_code=trust_remote_code)
    images = [Image.new("RGB", (50, 40), color) for color in ("red", "blue")]
    with torch.no_grad():
        inputs = processor(images=images, text=["is big", ""], return_tensors="pt")
        return model.get_composed_features(**inputs).pooler_output.tolist()


def test_published_models_give_the_features_they_gave_before(hub, client, stranger, folders, processor):
    """Without our packages from the Hub, then with them from the cache."""
    expected = {name: features(load_model(str(folders[name])), processor) for name in ("stage1", "full")}
    assert (expected["stage1"] - expected["full"]).abs().max() > 1e-2
    expected["adapter"] = expected["full"]
    # On the Hub transformers follows the name of the base even to where the base lies beside the adapter.
    name_base(folders["full"], "ana/full")
    name_base(folders["adapter"], "ana/stage1")
    pushed = client.session(*(partial(push, folder=folders[name], repo_id=f"ana/{name}") for name in expected))
    revisions = {"stage1": "main", "full": pushed[1].value[0], "adapter": "main"}
    calls = [partial(embed, repo_id=f"ana/{name}", revision=revisions[name]) for name in expected]

    online = replace(stranger, has_our_packages=False).session(*calls)
    hub.close()
    offline = replace(stranger, offline=True).session(*(partial(call, trust_remote_code=False) for call in calls))
    for outcomes in (online, offline):
        for outcome, (name, tensor) in zip(outcomes, expected.items()):
            assert not outcome.error, f"{name}: {outcome.output}"
            torch.testing.assert_close(torch.tensor(outcome.value), tensor, atol=1e-5, rtol=1e-5, msg=name)
