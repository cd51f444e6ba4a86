"""Hostile files are refused, and nothing in them runs."""

import os
import pickle

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from m2c.conversion.checkpoint import Tensors, read_checkpoint


class Bomb:
    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


@pytest.mark.parametrize("zipped", [True, False])
def test_pickled_code_is_refused_and_not_run(tmp_path, zipped):
    fuse, path = tmp_path / "exploded", tmp_path / "bomb.pt"
    torch.save({"state_dict": {"a": torch.zeros(1)}, "args": Bomb(fuse)}, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(ValueError, match=r"bomb.pt was refused: it holds (posix|nt).system"):
        read_checkpoint(path)
    assert not fuse.exists()
    torch.load(path, weights_only=False)
    assert fuse.exists(), "the bomb is a real one"


def test_a_bare_pickle_is_refused_and_not_run(tmp_path):
    fuse, path = tmp_path / "exploded", tmp_path / "bomb.pt"
    path.write_bytes(pickle.dumps(Bomb(fuse)))
    with pytest.raises(ValueError, match=r"bomb.pt (was refused|cannot be read)"):
        read_checkpoint(path)
    assert not fuse.exists()


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 0.999])
@pytest.mark.parametrize("zipped", [True, False])
def test_truncated_files(tmp_path, share, zipped):
    path = tmp_path / "cut.pt"
    torch.save({"Phi": {"layers.0.weight": torch.randn(50, 50)}}, path, _use_new_zipfile_serialization=zipped)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(ValueError, match=r"cut.pt"):
        read_checkpoint(path)


@pytest.mark.parametrize(
    "content", [b"", b"<html>not found</html>", b"version https://git-lfs.github.com/spec/v1\n", b"PK\x03\x04"]
)
def test_other_files(tmp_path, content):
    path = tmp_path / "wrong.pt"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"wrong.pt"):
        read_checkpoint(path)


def test_no_file(tmp_path):
    for path in (tmp_path, tmp_path / "missing.pt"):
        with pytest.raises(ValueError, match="is not a file"):
            read_checkpoint(path)


def test_no_dictionary(tmp_path):
    torch.save(torch.zeros(3), tmp_path / "tensor.pt")
    with pytest.raises(ValueError, match="holds a Tensor"):
        read_checkpoint(tmp_path / "tensor.pt")


@given(data=st.data())
@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_damaged_files_are_named_whatever_the_damage(tmp_path, data):
    path = tmp_path / "damaged.pt"
    for zipped in (True, False):
        torch.save({"Phi": {"layers.0.weight": torch.ones(3)}}, path, _use_new_zipfile_serialization=zipped)
        content = bytearray(path.read_bytes())
        for _ in range(3):
            content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
        path.write_bytes(content)
        try:
            assert isinstance(read_checkpoint(path), dict)
        except ValueError as error:
            assert "damaged.pt" in str(error)


def test_a_damaged_end_of_the_archive_is_named(tmp_path):
    path = tmp_path / "damaged.pt"
    torch.save({"Phi": {"layers.0.weight": torch.ones(3)}}, path)
    content = path.read_bytes()
    for position in range(len(content) - 120, len(content)):
        path.write_bytes(content[:position] + b"\x01" + content[position + 1 :])
        try:
            assert isinstance(read_checkpoint(path), dict)
        except ValueError as error:
            assert "damaged.pt" in str(error)


def test_tensors_that_are_no_weights():
    hostile = {
        "integer": torch.ones(2, dtype=torch.int32),
        "complex": torch.ones(2, dtype=torch.complex64),
        "nan": torch.tensor([1.0, float("nan")]),
        "sparse": torch.ones(2).to_sparse(),
        "meta": torch.ones(2, device="meta"),
    }
    for name in hostile:
        with pytest.raises(ValueError, match=rf"Phi\['{name}'\] does not hold finite floats"):
            Tensors({"Phi": hostile}, "Phi").take(name, 2)
    with pytest.raises(ValueError, match="twice"):
        Tensors({"Phi": {"a": torch.ones(1), "module.a": torch.ones(1)}}, "Phi")
    assert Tensors({"Phi": {"layers.²0.x": torch.ones(1)}}, "Phi").count("layers.") == 0


def test_parts_hold_tensors_only():
    with pytest.raises(ValueError, match=r"Phi\['a'\] is a str"):
        Tensors({"Phi": {"a": "text"}}, "Phi")
    with pytest.raises(ValueError, match="it has nothing"):
        Tensors({}, "Phi")
