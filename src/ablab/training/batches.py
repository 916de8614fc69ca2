"""Which samples a step takes, and their batches, made ahead of the loop where that pays.

The training stream is the epochs' orders one after another, and step n takes samples [n x batch, (n + 1) x batch) of
it: an epoch's last batch is filled from the next epoch, nothing is dropped, every batch is full, and a position is
all that a resume needs.
"""

from __future__ import annotations

import queue
import statistics
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Generic, TypeVar, cast

import numpy as np
import torch
from torch import Tensor

from ablab.contract.failure import DataError
from ablab.training.accumulation import share, split
from ablab.training.task import Batch, Data, Partitioned

T = TypeVar("T")
#: Items made on request before it is decided whether a thread makes the rest.
_TRIALS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class StepBatch:
    """The share of one step that this process computes, cut into micro-batches.

    `offset` is the place of its first sample in the effective batch.
    """

    step: int
    offset: int
    ids: np.ndarray
    micros: tuple[Mapping[str, Any], ...]
    weights: tuple[float, ...]
    sizes: tuple[int, ...]

    @property
    def offsets(self) -> tuple[int, ...]:
        """Place of each micro-batch's first sample in the effective batch."""
        return tuple(self.offset + sum(self.sizes[:index]) for index in range(len(self.sizes)))

    @property
    def weight(self) -> float:
        """What the loss of this share sums over (target tokens)."""
        return sum(self.weights)


class Stream:
    """Sample ids by step: a pure function of (data, seed, batch)."""

    def __init__(self, data: Data, *, seed: int, batch: int) -> None:
        if data.samples < 1:
            raise DataError("the training split holds no samples", samples=data.samples)
        self.data, self.seed, self.batch = data, seed, batch
        self._orders: dict[int, np.ndarray] = {}

    def steps(self, epochs: float) -> int:
        """Return the whole batches in so many epochs, at least one."""
        return max(1, int(epochs * self.data.samples / self.batch + 1e-9))

    def ids(self, step: int) -> np.ndarray:
        """Return the sample ids of a step, int64 of shape (batch,)."""
        parts, position, left = [], step * self.batch, self.batch
        while left:
            epoch, offset = divmod(position, self.data.samples)
            part = self._order(epoch)[offset : offset + left]
            parts.append(part)
            position += len(part)
            left -= len(part)
        return np.concatenate(parts) if len(parts) > 1 else parts[0]

    def _order(self, epoch: int) -> np.ndarray:
        if epoch not in self._orders:
            # Only the epochs one step can touch are kept: an order may be as large as the split.
            self._orders = {key: order for key, order in self._orders.items() if key == epoch - 1}
            self._orders[epoch] = self.data.order(self.seed, epoch)
        return self._orders[epoch]


def make_batch(stream: Stream, step: int, *, micro: int, rank: int = 0, size: int = 1) -> StepBatch:
    """Return the micro-batches of one step for one process."""
    offset, ids = share(stream.ids(step), rank=rank, size=size)
    if isinstance(stream.data, Partitioned):
        return _partitioned(stream, stream.data.parts(ids, most=micro), step=step, offset=offset)
    whole = aligned(stream.data.batch(ids, seed=stream.seed, step=step))
    micros = tuple(split(whole, len(ids), micro))
    weights = tuple(float(stream.data.weight(part)) for part in micros)
    sizes = tuple(min(micro, len(ids) - low) for low in range(0, len(ids), micro))
    return StepBatch(step=step, offset=offset, ids=ids, micros=micros, weights=weights, sizes=sizes)


def _partitioned(stream: Stream, parts: list[np.ndarray], *, step: int, offset: int) -> StepBatch:
    """Return a step whose micro-batches the data itself cuts: each is made, and padded, by itself."""
    micros = tuple(aligned(stream.data.batch(part, seed=stream.seed, step=step)) for part in parts)
    return StepBatch(
        step=step,
        offset=offset,
        ids=np.concatenate(parts),
        micros=micros,
        weights=tuple(float(stream.data.weight(made)) for made in micros),
        sizes=tuple(map(len, parts)),
    )


def aligned(batch: Batch) -> dict[str, Any]:
    """Return the batch with floating-point tensors on 64-byte boundaries, as torch allocates them.

    Matrix kernels may round differently by alignment, and memory that comes from numpy lies anywhere.
    """
    return {name: _align(value) for name, value in batch.items()}


def _align(value: Any) -> Any:
    if isinstance(value, Tensor) and value.is_floating_point() and value.data_ptr() % 64:
        return value.clone()
    return value


def to_device(batch: Mapping[str, Any], device: torch.device) -> Mapping[str, Any]:
    """Return the batch on the device; the copy of pinned memory does not wait."""
    if device.type == "cpu":
        return batch
    return {
        name: value.to(device, non_blocking=True) if isinstance(value, Tensor) else value
        for name, value in batch.items()
    }


class Prefetcher(Generic[T]):
    """Items of `make(n)` for n in a range, made ahead of their use where that pays.

    The first items are made where they are asked for. When making one takes more than `share` of the time between
    two requests, a thread takes over and works a few ahead; a cheap item is not worth the interpreter lock changing
    hands. The thread computes with one intra-op thread, so that it starts no second team beside the training's. An
    error in `make` is raised where the item is taken. Use as a context manager; leaving it ends the thread.
    """

    def __init__(
        self,
        make: Callable[[int], T],
        start: int,
        stop: int,
        *,
        ahead: int = 3,
        share: float = 0.01,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._make, self._next, self._stop, self._share = make, start, stop, share
        self._clock = clock
        self._queue: queue.Queue[tuple[T | None, BaseException | None]] = queue.Queue(maxsize=ahead)
        self._closing = threading.Event()
        self._ready = threading.Event()
        self._thread: threading.Thread | None = None
        self._making: list[float] = []
        self._using: list[float] = []

    def __enter__(self) -> Iterator[T]:
        return self._items()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing.set()
        while self._thread is not None and self._thread.is_alive():
            self._drain()
            self._thread.join(timeout=0.05)
        self._drain()

    def _drain(self) -> None:
        while not self._queue.empty():
            self._queue.get_nowait()

    def _items(self) -> Iterator[T]:
        while self._next < self._stop:
            if self._thread is None and not self._pays():
                began = self._clock()
                item = self._make(self._next)
                self._next += 1
                given = self._clock()
                yield item
                self._making.append(given - began)
                self._using.append(self._clock() - given)
                continue
            if self._thread is None:
                self._start()
            yield self._take()

    def _pays(self) -> bool:
        """Whether a thread is worth it, judged once by the items two to four (the first one is warm-up)."""
        if self._share <= 0:
            return True
        if len(self._making) != _TRIALS:
            return False
        return statistics.median(self._making[1:]) > self._share * statistics.median(self._using[1:])

    def _start(self) -> None:
        threads = torch.get_num_threads()
        todo = range(self._next, self._stop)
        self._thread = threading.Thread(target=self._work, args=(todo,), name="ablab-prefetch", daemon=True)
        self._thread.start()
        self._ready.wait()
        if threads > 1:
            # torch keeps one global value for threads yet to come and one per thread: restore the first.
            torch.set_num_threads(threads)

    def _take(self) -> T:
        item, error = self._queue.get()
        if error is not None:
            raise error
        self._next += 1
        return cast(T, item)

    def _work(self, todo: range) -> None:
        if torch.get_num_threads() > 1:
            torch.set_num_threads(1)
        self._ready.set()
        for n in todo:
            try:
                entry: tuple[T | None, BaseException | None] = (self._make(n), None)
            except BaseException as error:
                entry = (None, error)
            if not self._offer(entry) or entry[1] is not None:
                return

    def _offer(self, entry: tuple[T | None, BaseException | None]) -> bool:
        while not self._closing.is_set():
            try:
                self._queue.put(entry, timeout=0.1)
            except queue.Full:
                continue
            return True
        return False
