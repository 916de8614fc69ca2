"""One and several processes with the same code: who we are, sums over all, and gradients added up.

Processes are started by torchrun (RANK, WORLD_SIZE and the address in the environment) and hold a full copy of the
model. Each computes its share of the effective batch; gradients are summed in buckets, so the update is that of one
process up to the order of addition. Rank 0 alone writes files.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

#: Bytes of gradients that travel together: few messages, and the first leaves while others are being packed.
BUCKET_BYTES = 25 << 20
#: Buckets that travel at once: all of them would be a second copy of the gradients.
IN_FLIGHT = 4


def rank() -> int:
    """Return this process's number in its run, 0 without torchrun."""
    return int(os.environ.get("RANK", "0"))


def world_size() -> int:
    """Return the processes of this run, 1 without torchrun."""
    return int(os.environ.get("WORLD_SIZE", "1"))


class World:
    """The processes of a run. With one process, every method is the identity and costs nothing."""

    def __init__(self, *, rank: int = 0, size: int = 1) -> None:
        self.rank, self.size = rank, size

    @property
    def writes(self) -> bool:
        """Whether this process writes files."""
        return self.rank == 0

    def sum(self, values: Sequence[float]) -> list[float]:
        """Return the element-wise sums over all processes, in fp64 on the CPU."""
        if self.size == 1:
            return list(values)
        total = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(total)
        return [float(value) for value in total.tolist()]

    def any(self, *flags: bool) -> list[bool]:
        """Return for each flag whether any process raises it."""
        return [total > 0 for total in self.sum([float(flag) for flag in flags])]

    def from_first(self, value: Any) -> Any:
        """Return what rank 0 passed."""
        if self.size == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0)
        return box[0]

    def gather(self, value: Any) -> list[Any]:
        """Return what every process passed, by rank."""
        if self.size == 1:
            return [value]
        found: list[Any] = [None] * self.size
        dist.all_gather_object(found, value)
        return found

    def wait(self) -> None:
        """Return when all processes are here."""
        if self.size > 1:
            dist.barrier()

    def sum_gradients(self, parameters: Iterable[Tensor]) -> None:
        """Replace each gradient by its sum over all processes; a parameter unused here counts as zero."""
        if self.size == 1:
            return
        waiting: deque[tuple[Any, Tensor, list[Tensor]]] = deque()
        for bucket in _buckets(parameters):
            flat = _pack(bucket)
            waiting.append((dist.all_reduce(flat, async_op=True), flat, bucket))
            if len(waiting) > IN_FLIGHT:
                _receive(*waiting.popleft())
        while waiting:
            _receive(*waiting.popleft())


def _buckets(parameters: Iterable[Tensor]) -> Iterator[list[Tensor]]:
    """Yield parameters in groups of one dtype of about BUCKET_BYTES, last first, as backward finishes them."""
    bucket: list[Tensor] = []
    size = 0
    for parameter in reversed(list(parameters)):
        if bucket and (size >= BUCKET_BYTES or bucket[0].dtype != parameter.dtype):
            yield bucket
            bucket, size = [], 0
        bucket.append(parameter)
        size += parameter.numel() * parameter.element_size()
    if bucket:
        yield bucket


def _pack(bucket: Sequence[Tensor]) -> Tensor:
    return torch.cat([(p.grad if p.grad is not None else torch.zeros_like(p)).reshape(-1) for p in bucket])


def _receive(handle: Any, flat: Tensor, bucket: Sequence[Tensor]) -> None:
    handle.wait()
    _unpack(flat, bucket)


def _unpack(flat: Tensor, bucket: Sequence[Tensor]) -> None:
    for parameter, part in zip(bucket, flat.split([p.numel() for p in bucket]), strict=True):
        if parameter.grad is None:
            parameter.grad = part.view_as(parameter).clone()
        else:
            parameter.grad.copy_(part.view_as(parameter))


@contextmanager
def join(device: torch.device) -> Iterator[World]:
    """Yield the world of this run: gloo for CPU tensors and, on GPUs, nccl for theirs."""
    size = world_size()
    if size == 1:
        yield World()
        return
    ours = not dist.is_initialized()
    if ours:
        dist.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo")
    try:
        yield World(rank=dist.get_rank(), size=dist.get_world_size())
    finally:
        if ours:
            dist.destroy_process_group()
