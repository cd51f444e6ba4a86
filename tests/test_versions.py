"""What a record says about the software."""

from importlib.metadata import version

from m2c import versions as versions_module
from m2c.versions import versions


def test_packages_that_decide_a_result_are_named_and_one_that_is_not_installed_is_none(monkeypatch):
    assert versions()["torch"] == version("torch") and {"python", "m2c", "transformers", "Pillow"} <= set(versions())
    monkeypatch.setattr(versions_module, "PACKAGES", ("no-such-package", "torch"))
    assert versions()["no-such-package"] is None and versions()["torch"] == version("torch")
