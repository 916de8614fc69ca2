"""Two processes have the loss and the gradients of one that sees the whole batch."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from ablab.models.gathering import gather, gather_padded

#: Runs on each of two processes: 3 and 2 rows of a batch of five, unlike numbers of positives and mined negatives.
WORKER = """
import sys, torch, torch.distributed as dist
from torch import nn
from ablab.tasks.retrieval.batches import padded
from ablab.tasks.retrieval.objective import Objective
rank, size, place, out = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4]
torch.set_num_threads(1)
if size > 1:
    dist.init_process_group("gloo", init_method=f"file://{place}", rank=rank, world_size=size)
generator = torch.Generator().manual_seed(0)
x, y, z = (torch.randn(rows, 6, generator=generator) for rows in (5, 5, 4))
torch.manual_seed(1)
encoder = nn.Linear(6, 8)
scale = nn.Parameter(torch.tensor(1.5))
own = torch.tensor([3, 4, 3, 7, 9])
positives = [[3], [4, 7], [3, 9, 11], [7], [9, 3]]
mined = torch.tensor([4, 20, 21, 7])
span, part = (slice(0, 5), slice(0, 4)) if size == 1 else ((slice(0, 3), slice(0, 3)), (slice(3, 5), slice(3, 4)))[rank]
encode = lambda rows: nn.functional.normalize(encoder(rows).view(-1, 2, 4), dim=-1)
for symmetric in (False, True):
    encoder.zero_grad(); scale.grad = None
    objective = Objective(scale=lambda s: s * scale, symmetric=symmetric)
    total, terms = objective(
        encode(x[span]), encode(y[span]), own=own[span], positives=padded(positives[span]),
        negatives=(encode(z[part]), mined[part]),
    )
    total.backward()
    found = torch.cat([total.detach().view(1), terms["r_at_1"].view(1).float(), encoder.weight.grad.view(-1),
                       encoder.bias.grad, scale.grad.view(1)])
    if size > 1:
        dist.all_reduce(found)
    if rank == 0:
        torch.save(found, f"{out}-{symmetric}")
if size > 1:
    dist.destroy_process_group()
"""


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("gather")
    script = folder / "worker.py"
    script.write_text(WORKER)
    for size in (1, 2):
        arguments = [str(size), str(folder / "meeting"), str(folder / f"of-{size}")]
        processes = [subprocess.Popen([sys.executable, str(script), str(rank), *arguments]) for rank in range(size)]
        assert [process.wait(timeout=120) for process in processes] == [0] * size
    return folder


@pytest.mark.parametrize("symmetric", [False, True])
def test_two_processes_have_the_loss_and_gradients_of_one(results: Path, symmetric: bool) -> None:
    one, two = (torch.load(results / f"of-{size}-{symmetric}", weights_only=True) for size in (1, 2))
    assert one[2:].abs().max() > 0.01
    torch.testing.assert_close(two, one, atol=1e-5, rtol=1e-5)


def test_one_process_gathers_nothing() -> None:
    tensor = torch.randn(3, 2)
    gathered, offset = gather(tensor)
    assert gathered is tensor and offset == 0
    assert gather_padded(tensor, fill=-1) is tensor
