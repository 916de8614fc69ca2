"""Tensors of all processes as one, with gradient: the negatives of a batch that several processes compute.

Rows may differ in number between processes, and trailing sizes are made equal by padding. The gradient of a row is the
sum over all processes of what each derives for it, so gradients summed over the processes are those of one process
that had the whole batch.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


def world() -> tuple[int, int]:
    """Return (rank, processes) of this run; (0, 1) without a process group."""
    return (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)


def gather(tensor: Tensor) -> tuple[Tensor, int]:
    """Return the rows of all processes in order of rank, and where this process's begin.

    Args:
        tensor: (rows, ...); all but the first size equal on all processes.
    """
    rank, size = world()
    if size == 1:
        return tensor, 0
    rows = _sizes(tensor.size(0), tensor.device)
    gathered: Tensor = _Gather.apply(tensor, rows, rank)  # type: ignore[no-untyped-call]  # torch has no types here
    return gathered, sum(rows[:rank])


def gather_padded(tensor: Tensor, *, fill: int) -> Tensor:
    """Return the rows (rows, K) of all processes, K being the largest of theirs, filled up with `fill`; no gradient."""
    if world()[1] == 1:
        return tensor
    most = max(_sizes(tensor.size(1), tensor.device))
    padded = torch.nn.functional.pad(tensor, (0, most - tensor.size(1)), value=fill)
    return gather(padded)[0]


def _sizes(own: int, device: torch.device) -> list[int]:
    """Return a number of every process."""
    sizes = [torch.zeros(1, dtype=torch.int64, device=device) for _ in range(dist.get_world_size())]
    dist.all_gather(sizes, torch.tensor([own], device=device))
    return [int(size) for size in sizes]


class _Gather(torch.autograd.Function):
    """all_gather forward; the sum over processes of a row's gradients backward."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor, rows: list[int], rank: int) -> Tensor:
        ctx.rows, ctx.rank = rows, rank
        most = max(rows)
        padded = tensor.new_zeros((most, *tensor.shape[1:]))
        padded[: tensor.size(0)] = tensor
        parts = [torch.empty_like(padded) for _ in rows]
        dist.all_gather(parts, padded)
        return torch.cat([part[:count] for part, count in zip(parts, rows, strict=True)])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        gradient = gradients[0].contiguous()
        dist.all_reduce(gradient)
        low = sum(ctx.rows[: ctx.rank])
        return gradient[low : low + ctx.rows[ctx.rank]], None, None
