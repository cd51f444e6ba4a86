"""What is made of how the fresh process ends that loads a model or a data set. That it does load a model is seen in
test_publication."""

import textwrap

import pytest
import torch
from datasets import DatasetDict

from hub_cards.publishing import loading
from hub_cards.publishing.data_staging import stage_dataset
from hub_cards.publishing.loading import differences, probe, probe_rows
from m2c.data import scenes
from m2c.data.image_folder import write_image_folder


@pytest.fixture
def stranger(monkeypatch, tmp_path):
    """Puts other code in the place of the script."""

    def put(code: str) -> None:
        (tmp_path / "other.py").write_text(f"import sys\n{textwrap.dedent(code)}")
        monkeypatch.setattr(loading, "STRANGER", tmp_path / "other.py")

    return put


def test_arguments(stranger, tmp_path):
    """A folder is found from elsewhere; a revision is that of the adapter where the base has its own."""
    stranger("print(sys.argv[1:-1]); sys.exit(1)")
    (tmp_path / "you").mkdir()
    name = tmp_path / "you" / ".." / "you"
    for arguments, seen in (
        ((name,), [str(tmp_path / "you"), "{}", "{}"]),
        (("you/full", "abc"), ["you/full", '{"revision": "abc"}', '{"revision": "abc"}']),
        (("you/adapter", "abc", True), ["you/adapter", '{"adapter_kwargs": {"revision": "abc"}}', '{"revision": "abc"}']),
    ):
        with pytest.raises(ValueError) as raised:
            probe(*arguments)
        assert str(raised.value).endswith(f"does not load in a fresh process: {seen}")


def test_why_it_failed(stranger, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_" + 34 * "x")
    stranger("import os; print('Loading\\nOSError: no file', os.environ['HF_TOKEN']); sys.exit('Traceback')")
    with pytest.raises(ValueError, match=r"you/m2c does not load in a fresh process: OSError: no file \*\*\*$"):
        probe("you/m2c")
    stranger("import os; os.kill(os.getpid(), 9)")
    with pytest.raises(ValueError, match="the process ended with -9"):
        probe("you/m2c")


def test_a_process_that_hangs_is_ended(stranger, monkeypatch):
    monkeypatch.setattr(loading, "LONGEST", 0.5)
    stranger("import time; time.sleep(60)")
    with pytest.raises(ValueError, match="does not load in a fresh process: it was not done after 0 seconds"):
        probe("you/m2c")


@pytest.fixture
def libraries(monkeypatch, tmp_path):
    """In the place of those that the true script imports; of transformers the code of a function is given."""

    def put(from_pretrained: str) -> None:
        codes = {
            "torch": "float32 = None",
            "PIL": "Image = None",
            "safetensors/__init__": "",
            "safetensors/torch": "save_file = None",
            "transformers": f"class AutoModel:\n    from_pretrained = {from_pretrained}\nAutoProcessor = AutoModel",
        }
        for name, code in codes.items():
            path = tmp_path / f"{name}.py"
            path.parent.mkdir(exist_ok=True)
            path.write_text(code)
        monkeypatch.setenv("PYTHONPATH", str(tmp_path))

    return put


def test_a_hub_that_falls_silent_is_a_failure(libraries):
    """The client of the Hub waits for ever by itself."""
    libraries("lambda *_, **__: {}[__import__('huggingface_hub').get_session().timeout.read]")
    with pytest.raises(ValueError, match=r"process: KeyError: 100\.0$"):
        probe("you/m2c")


@pytest.mark.parametrize("package", ["m2c", "modeling_m2c", "processing_m2c", "hub_cards"])
def test_a_model_that_needs_our_packages_does_not_load(libraries, package):
    libraries(f"lambda *_, **__: __import__({package!r})")
    with pytest.raises(ValueError, match=rf"process: ModuleNotFoundError: import of {package} halted; None in sys\.modules$"):
        probe("you/m2c")


def test_broken_numbers(stranger):
    stranger("""
        import numpy
        from safetensors.numpy import save_file
        save_file({"images": numpy.ones(2), "texts": numpy.full(2, numpy.nan)}, sys.argv[-1])
    """)
    with pytest.raises(ValueError, match=r"features that are not finite \(texts\); is the checkpoint whole"):
        probe("you/m2c")


def test_rows_and_columns_of_every_split(tmp_path):
    """Nobody is asked, and nothing is left behind."""
    (tmp_path / "staged").mkdir()
    splits = DatasetDict({"train": scenes.triplets(3), "test": scenes.triplets(2, seed=1)})
    counts = stage_dataset(write_image_folder(splits, tmp_path / "a"), tmp_path / "staged", "you/triplets", "mit", None)
    before = sorted(tmp_path.rglob("*"))
    found = probe_rows(tmp_path / "staged")
    assert found.keys() == {"default"} and {name: part["rows"] for name, part in found["default"].items()} == counts
    columns = {"modification": "Value('string')", "reference_caption": "Value('string')"}
    images = dict.fromkeys(("reference", "target"), "Image(mode=None, decode=True)")
    assert counts == {"train": 3, "test": 2} and found["default"]["test"]["columns"] == {**columns, **images}
    assert sorted(tmp_path.rglob("*")) == before


def test_a_data_set_that_does_not_load(tmp_path, monkeypatch):
    (tmp_path / "README.md").write_text("nothing")
    with pytest.raises(ValueError, match=r"does not load in a fresh process: \w*Error: .* doesn't contain any data files"):
        probe_rows(tmp_path)
    (tmp_path / "other.py").write_text("import sys; print(sys.argv[1:-1]); sys.exit(1)")
    monkeypatch.setattr(loading, "READER", tmp_path / "other.py")
    with pytest.raises(ValueError, match=r"""process: \['you/data', '{"revision": "abc"}'\]$"""):
        probe_rows("you/data", "abc")


def test_differences():
    one = {"images": torch.ones(2), "texts": torch.ones(2)}
    assert differences(one, {**one, "texts": torch.ones(2) + 1e-7}) == []
    assert differences(one, {**one, "texts": torch.ones(2) + 1e-3}) == ["texts"]
