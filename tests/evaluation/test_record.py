from huggingface_hub import constants

from m2c.checkpoints import load_model
from m2c.evaluation.record import describe_model


def test_the_revision_of_a_repository_is_its_commit_and_a_folder_has_none(mapping, tmp_path, monkeypatch):
    model, commit = load_model(mapping), "0123456789abcdef0123456789abcdef01234567"
    for repository, file in (("you--m2c", "config.json"), ("you--adapter", "adapter_config.json")):
        folder = tmp_path / f"models--{repository}"
        (folder / "refs").mkdir(parents=True)
        (folder / "refs" / "main").write_text(commit)
        (folder / "snapshots" / commit).mkdir(parents=True)
        (folder / "snapshots" / commit / file).write_text("{}")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    names = ("you/m2c", "you/adapter", mapping, "scenes")
    assert [describe_model(name, model)["revision"] for name in names] == [commit, commit, None, None]
