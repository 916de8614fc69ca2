"""Goes over all tensors block by block: looks, merge, write; memory is a few blocks a process.

The result depends on nothing but the inputs, the settings and the seed: not on processes, shards, or the order of
work. Blocks are cut by a tensor's shape alone. Work is handed out in units to helper processes (`helpers`), since
threads would wait for the interpreter's lock between operations this short.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from ablab.contract.failure import StopRequested
from ablab.merging.recipes import Recipe
from ablab.merging.sources import FullModel, Source

#: Entries of a block: small enough that its tensors stay in a core's cache, large enough to hide the interpreter.
BLOCK = {"cpu": 1 << 16, "cuda": 1 << 24}
#: Entries of a unit of work, about a tenth of a second; a tensor whose method looks at it first is one unit.
UNIT = 1 << 23


class Writer(Protocol):
    """Takes the result."""

    def write(self, name: str, start: int, values: Tensor) -> None:
        """Take the entries from `start` of a tensor."""
        ...

    def write_bytes(self, name: str, position: int, data: np.ndarray) -> None:
        """Take bytes of a tensor as they are."""
        ...


@dataclass(frozen=True, kw_only=True)
class Job:
    """One tensor to be merged, or copied where there is no recipe.

    Args:
        name: of the tensor.
        shape: its shape.
        recipe: makes what merges it; None copies the base's.
        looks: whether the method looks at the whole tensor before it merges.
        whole: `rows` must not be cut (the method ranks rows), `all` means the whole tensor at once.
    """

    name: str
    shape: tuple[int, ...]
    recipe: Callable[[], Recipe] | None
    looks: bool = False
    whole: str = ""

    @property
    def count(self) -> int:
        """Number of entries."""
        count = 1
        for size in self.shape:
            count *= size
        return count

    @property
    def columns(self) -> int:
        """Entries of a row; a tensor of one dimension is one row."""
        return max(1, self.count // self.shape[0]) if len(self.shape) > 1 else max(1, self.count)

    def spans(self, block: int) -> list[tuple[int, int]]:
        """Return where blocks begin and end: at rows, where a row fits."""
        size = block
        if self.whole == "all":
            size = max(1, self.count)
        elif self.columns <= block or self.whole == "rows":
            size = max(1, block // self.columns) * self.columns
        return [(start, min(start + size, self.count)) for start in range(0, self.count, size)]


@dataclass(frozen=True, slots=True)
class Unit:
    """A part of the work: the blocks `first` to `last` of the job of a number."""

    job: int
    first: int
    last: int
    entries: int


@dataclass(frozen=True, slots=True)
class Done:
    """What a unit tells when it is done: squared norms of the task vectors, and of what was merged of them."""

    unit: Unit
    deltas: tuple[float, ...] = ()
    moved: float = 0.0


class Inputs:
    """The inputs between two entries of one tensor; see `ablab.merging.recipes.Block`."""

    def __init__(self, job: Job, span: tuple[int, int], base: FullModel | None, models: Sequence[Source]) -> None:
        self.start, self.stop = span
        self.columns = job.columns
        self._job, self._base, self._models = job, base, models
        self._kept: Tensor | None = None

    def part(self, entries: int) -> Inputs:
        """Return the first entries of the block."""
        stop = min(self.stop, self.start + entries)
        return self if stop == self.stop else Inputs(self._job, (self.start, stop), self._base, self._models)

    def base(self) -> Tensor:
        """Return the base's entries, read once; not to be changed."""
        if self._kept is None:
            assert self._base is not None
            self._kept = self._base.value(self._job.name, self.start, self.stop)
        return self._kept

    def value(self, model: int) -> Tensor:
        """Return a model's entries."""
        base = None if self._base is None else self.base()
        return self._models[model].value(self._job.name, self.start, self.stop, base)

    def delta(self, model: int) -> Tensor:
        """Return a model's task vector."""
        base = None if self._base is None else self.base()
        return self._models[model].delta(self._job.name, self.start, self.stop, base)


@dataclass(frozen=True, kw_only=True)
class Bench:
    """Everything a process needs to do units.

    Args:
        jobs: the tensors.
        base: what task vectors are taken from.
        models: what is merged.
        copied_from: where tensors without a recipe are copied from.
        writer: takes the result.
        device: where blocks are computed.
    """

    jobs: Sequence[Job]
    base: FullModel | None
    models: Sequence[Source]
    copied_from: FullModel | None
    writer: Writer
    device: torch.device

    def units(self) -> list[Unit]:
        """Return the work in units, the largest first; those of equal size in the order of the files."""
        found = []
        for number, job in enumerate(self.jobs):
            spans = job.spans(BLOCK[self.device.type])
            each = len(spans) if job.looks else max(1, UNIT // max(1, spans[0][1] - spans[0][0])) if spans else 1
            for first in range(0, len(spans), each):
                last = min(first + each, len(spans))
                found.append(Unit(number, first, last, spans[last - 1][1] - spans[first][0]))
        return sorted(found, key=lambda unit: -unit.entries)

    @torch.no_grad()
    def do(self, unit: Unit) -> Done:
        """Do one unit."""
        job = self.jobs[unit.job]
        spans = job.spans(BLOCK[self.device.type])[unit.first : unit.last]
        read = [self.copied_from] if job.recipe is None else [self.base, *self.models]
        for source in read:
            if source is not None:
                source.expect(job.name, spans[0][0], spans[-1][1])
        if job.recipe is None:
            for span in spans:
                self._copy(job, span)
            return Done(unit)
        recipe = job.recipe()
        number = 0
        while number < recipe.looks:
            for span in spans:
                recipe.look(number, self._inputs(job, span))
            recipe.settle(number)
            number += 1
        for span in spans:
            self.writer.write(job.name, span[0], recipe.merge(self._inputs(job, span)))
        for model in self.models:
            model.forget(job.name)
        return Done(unit, tuple(recipe.norms), recipe.moved)

    def _inputs(self, job: Job, span: tuple[int, int]) -> Inputs:
        return Inputs(job, span, self.base, self.models)

    def _copy(self, job: Job, span: tuple[int, int]) -> None:
        assert self.copied_from is not None
        width = self.copied_from.shards.entries[job.name].bytes // max(job.count, 1)
        self.writer.write_bytes(job.name, span[0] * width, self.copied_from.shards.read_bytes(job.name, *span))


class Helpers(Protocol):
    """Processes that do units beside this one."""

    count: int

    def submit(self, unit: Unit) -> Future[Done]:
        """Hand a unit to a helper."""
        ...


def run(
    bench: Bench,
    *,
    helpers: Helpers | None = None,
    done: Callable[[Done], None] = lambda _: None,
    stop: Callable[[], bool] = lambda: False,
) -> None:
    """Do all the work.

    Args:
        bench: what there is to do.
        helpers: take units beside this process, the largest first; this one begins at the other end.
        done: told what each unit yielded, in any order.
        stop: asked between units.

    Raises:
        StopRequested: `stop` became true; the result is not complete.
    """
    waiting = deque(bench.units())
    given: set[Future[Done]] = set()
    with one_thread():
        while waiting or given:
            if stop():
                raise StopRequested("stopped during a merge")
            for future in [each for each in given if each.done()]:
                given.remove(future)
                done(future.result())
            while helpers is not None and waiting and len(given) < 2 * helpers.count:
                given.add(helpers.submit(waiting.popleft()))
            if waiting:
                done(bench.do(waiting.pop()))
            elif given:
                wait(given, timeout=1.0, return_when=FIRST_COMPLETED)


@contextmanager
def one_thread() -> Iterator[None]:
    """Let torch use one thread: operations on a block are too short to be divided."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
