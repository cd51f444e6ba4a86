"""Checkpoints of a small module: what they hold, and what a damaged file, a full disk or a killed process leaves of them."""

import errno
import json
import resource
from contextlib import contextmanager

import pytest
import torch
from accelerate import Accelerator
from safetensors.torch import load_file
from torch import nn

from m2c.training.records.checkpoint_files import checkpoints_in, damage_of, newest_whole, remove_leftovers
from m2c.training.records.checkpointing import load_checkpoint, register_checkpoint_hooks, save_checkpoint


class Run:
    """What a training loop has: a module with a frozen part, an optimiser, a schedule and steps."""

    def __init__(self, output_dir, seed: int = 0):
        self.output_dir, self.accelerator = output_dir, Accelerator(cpu=True)
        torch.manual_seed(seed)
        self.module = nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 3))
        self.module[3].requires_grad_(False)
        optimizer = torch.optim.AdamW([p for p in self.module.parameters() if p.requires_grad], lr=0.1)
        self.schedule = torch.optim.lr_scheduler.LinearLR(optimizer, total_iters=10)
        self.task, self.optimizer = self.accelerator.prepare(self.module, optimizer)
        register_checkpoint_hooks(self.accelerator)
        self.step = 0

    def train(self, steps: int) -> None:
        for _ in range(steps):
            self.optimizer.zero_grad()
            self.accelerator.backward(self.task(torch.randn(4, 5)).square().sum())
            self.optimizer.step()
            self.schedule.step()
            self.step += 1

    def save(self, keep: int = 2):
        progress = {"step": self.step, "schedule": self.schedule.state_dict()}
        return save_checkpoint(self.accelerator, self.output_dir, progress, keep)


@pytest.fixture
def run(tmp_path):
    return Run(tmp_path)


@pytest.fixture
def three(run):
    """Checkpoints of steps 1 to 3, the newest first."""
    for _ in range(3):
        run.train(1)
        run.save(keep=3)
    return checkpoints_in(run.output_dir)


def names(run) -> list[str]:
    return sorted(path.name for path in (run.output_dir / "checkpoints").iterdir())


def test_a_resumed_run_is_the_same_run(run):
    run.train(2)
    folder = run.save()
    run.train(3)
    again = Run(run.output_dir, seed=1)
    again.module[3].load_state_dict(run.module[3].state_dict())
    progress = load_checkpoint(again.accelerator, folder)
    assert progress["step"] == 2
    again.schedule.load_state_dict(progress["schedule"])
    again.train(3)
    for name, tensor in run.module.state_dict().items():
        assert torch.equal(tensor, again.module.state_dict()[name]), name
    assert again.schedule.get_last_lr() == run.schedule.get_last_lr()


def test_only_what_is_trained_is_stored(run):
    run.train(1)
    state = load_file(run.save() / "trained.safetensors")
    buffers = {"1.running_mean", "1.running_var", "1.num_batches_tracked"}
    assert state.keys() == {"0.weight", "0.bias", "1.weight", "1.bias", *buffers}


@pytest.mark.parametrize("keep", [1, 2])
def test_the_newest_are_kept(run, keep):
    for _ in range(4):
        run.train(1)
        run.save(keep)
    assert names(run) == [f"step_{step:06d}" for step in (1, 2, 3, 4)][-keep:]


def test_more_than_a_million_steps(run):
    for step in (999_999, 1_000_000, 1_000_001):
        run.step = step
        run.save()
    assert [path.name for path in checkpoints_in(run.output_dir)] == ["step_1000001", "step_1000000"]


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize("damage", [flip, cut, lambda path: path.unlink()])
def test_damage_of_any_file_is_recognised(three, damage):
    files = sorted(path.name for path in three[0].iterdir())
    assert files == ["manifest.json", "optimizer.bin", "progress.json", "random_states_0.pkl", "trained.safetensors"]
    assert damage_of(three[0]) is None
    for name in files:
        content = (three[0] / name).read_bytes()
        damage(three[0] / name)
        assert damage_of(three[0]) is not None, name
        (three[0] / name).write_bytes(content)
    assert damage_of(three[0]) is None


def test_any_flipped_bit_of_the_manifest_is_recognised(three):
    manifest = three[0] / "manifest.json"
    content = manifest.read_bytes()
    for place in range(0, len(content), 7):
        manifest.write_bytes(content[:place] + bytes([content[place] ^ 1 << place % 8]) + content[place + 1 :])
        if manifest.read_text(errors="replace").split() != content.decode().split():  # white space may change
            assert damage_of(three[0]) is not None, place


def test_the_newest_without_damage_is_taken(run, three):
    said = []
    assert newest_whole(run.output_dir, said.append) == three[0]
    assert said == []
    cut(three[0] / "trained.safetensors")
    flip(three[1] / "optimizer.bin")
    assert newest_whole(run.output_dir, said.append) == three[2]
    assert said == [
        f"the checkpoint {three[0]} is damaged: trained.safetensors is not what was written. The one before is taken",
        f"the checkpoint {three[1]} is damaged: optimizer.bin is not what was written. The one before is taken",
    ]
    (three[2] / "manifest.json").unlink()
    with pytest.raises(ValueError, match=r"every checkpoint in .*checkpoints is damaged"):
        newest_whole(run.output_dir, said.append)


def test_where_there_is_none(tmp_path):
    assert newest_whole(tmp_path, print) is None


def test_what_is_not_complete_is_no_checkpoint(run, three):
    three[0].rename(three[0].with_name(three[0].name + ".partial"))
    (run.output_dir / "checkpoints" / "step_000009 (copy)").mkdir()
    assert newest_whole(run.output_dir, print) == three[1]
    remove_leftovers(run.output_dir)
    assert names(run) == ["step_000001", "step_000002", "step_000009 (copy)"]


@contextmanager
def largest_file(size: int):
    """Lets the system refuse to write further into a file, as it does when the disk is full."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_full_disk(run, place):
    """Meets weights, which safetensors writes, the optimiser's state, which torch writes, or the random states."""
    run.train(1)
    previous = run.save(keep=1)
    sizes = [(previous / name).stat().st_size for name in ("trained.safetensors", "optimizer.bin", "random_states_0.pkl")]
    assert sizes == sorted(sizes), "in the order in which they are written"
    run.train(1)
    with largest_file(sizes[place] - 1), pytest.raises(OSError) as raised:
        run.save(keep=1)
    message = str(raised.value)
    assert message.startswith(f"the checkpoint {run.output_dir / 'checkpoints' / 'step_000002'} could not be written (")
    assert message.endswith(f" GB free; {previous} is as it was. Make room, and go on with --resume")
    assert "\n" not in message
    assert names(run) == ["step_000001"] and damage_of(previous) is None
    run.save(keep=1)
    assert names(run) == ["step_000002"]


def test_a_disk_that_is_full_at_the_end(run, monkeypatch):
    """When the manifest is written, or what was written is seen to the disk; with no checkpoint before."""
    run.train(1)

    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("m2c.training.records.checkpoint_files.os.fsync", full)
    with pytest.raises(OSError, match=r"could not be written \(.*No space left on device\), with .*; there is no earlier"):
        run.save()
    assert names(run) == []


def test_a_checkpoint_that_loads_nothing_is_named(run, three):
    """Files as they were written, of another module."""
    other = Run(run.output_dir)
    other.optimizer.add_param_group({"params": list(other.module[3].requires_grad_().parameters())})
    with pytest.raises(ValueError, match=r"step_000003 cannot be read"):
        load_checkpoint(other.accelerator, three[0])


def test_the_manifest_is_for_people_too(three):
    manifest = json.loads((three[0] / "manifest.json").read_text())
    entry = manifest["trained.safetensors"]
    assert entry["bytes"] == (three[0] / "trained.safetensors").stat().st_size and len(entry["sha256"]) == 64


def test_weights_that_have_no_place_are_not_passed_over(run, three):
    """Whether a name has changed or more is trained now: nothing is restored by halves."""
    other = Run(run.output_dir)
    other.module[3].requires_grad_()
    with pytest.raises(ValueError, match=r"trains something else: 3\.bias, 3\.weight"):
        load_checkpoint(other.accelerator, three[0])
