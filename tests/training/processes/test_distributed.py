"""Two processes with half the batch each take the gradient of one process with the whole batch."""

import os
import subprocess
import sys

import torch
import torch.distributed as dist
from torch.nn.functional import normalize

from m2c.training.tasks.objectives import composing_loss, soft_text_alignment, symmetric_info_nce


def batch() -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [normalize(torch.randn(8, 6, generator=generator), dim=-1) for _ in range(4)]


def loss_of(weight: torch.Tensor, rows: list[torch.Tensor]) -> torch.Tensor:
    inputs, targets, references, captions = rows
    queries = normalize(inputs @ weight, dim=-1)
    return (
        composing_loss(queries, targets, 0.1, 3, True, references)
        + symmetric_info_nce(references, queries, 0.1)
        + soft_text_alignment(captions, references, queries, 0.1)
    )


def worker(rank: int, path: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{path}/store", rank=rank, world_size=2)
    weight = torch.eye(6).requires_grad_()
    loss_of(weight, [rows[rank * 4 : rank * 4 + 4] for rows in batch()]).backward()
    # What DDP does with the gradients of the processes.
    dist.all_reduce(weight.grad)
    if rank == 0:
        torch.save(weight.grad / 2, os.path.join(path, "gradient.pt"))
    dist.destroy_process_group()


def test_two_processes_have_the_gradient_of_one(tmp_path):
    processes = [subprocess.Popen([sys.executable, __file__, str(rank), str(tmp_path)]) for rank in (0, 1)]
    assert [process.wait(timeout=120) for process in processes] == [0, 0]
    weight = torch.eye(6).requires_grad_()
    loss_of(weight, batch()).backward()
    torch.testing.assert_close(torch.load(tmp_path / "gradient.pt", weights_only=True), weight.grad, atol=1e-6, rtol=1e-5)


if __name__ == "__main__":
    worker(int(sys.argv[1]), sys.argv[2])
