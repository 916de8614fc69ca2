"""How a method goes over the blocks of one tensor: looks that gather what the whole tensor tells, then the merge.

A recipe belongs to one tensor. `look` takes every block, `settle` follows each round of looks, and `merge` then turns
one block of the inputs into the block of the result. A recipe lives in one process and thread.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor

from ablab.contract.failure import ConfigError, DataError
from ablab.contract.merge import EPSILON, Merge, MergedModel
from ablab.merging.methods.dare import chance, draw_bits, drop
from ablab.merging.methods.della import drop_smallest
from ablab.merging.methods.linear import linear
from ablab.merging.methods.selection import Cut, keep
from ablab.merging.methods.slerp import Products, coefficients, products, slerp
from ablab.merging.methods.task_arithmetic import combine
from ablab.merging.methods.ties import elect_and_merge

#: A merge function of the user's: base (None where there is none), models, weights and a seed to a merged tensor.
Own = Callable[..., Tensor]


class Block(Protocol):
    """The inputs between two entries of a tensor, as fresh fp32 tensors of one dimension."""

    start: int
    stop: int
    columns: int

    def base(self) -> Tensor:
        """Return the base's entries."""
        ...

    def part(self, entries: int) -> Block:
        """Return the first entries of the block, for a look that samples."""
        ...

    def value(self, model: int) -> Tensor:
        """Return a model's entries."""
        ...

    def delta(self, model: int) -> Tensor:
        """Return a model's task vector."""
        ...


class Recipe(Protocol):
    """A method for one tensor.

    `looks` may grow in `settle`. `norms` are the squared norms of the task vectors of the blocks merged so far, in
    fp64 (none where the method has no task vectors), and `moved` that of the merged one.
    """

    looks: int
    norms: list[float]
    moved: float

    def look(self, number: int, block: Block) -> None:
        """Gather from a block what the whole tensor is asked for."""
        ...

    def settle(self, number: int) -> None:
        """Conclude from all blocks."""
        ...

    def merge(self, block: Block) -> Tensor:
        """Return the merged entries, fp32; of the task vector alone where the result is an adapter."""
        ...


def takes_looks(settings: Merge) -> bool:
    """Tell whether a method looks at a whole tensor before it merges."""
    trims = settings.method == "ties" or any(each.trim is not None for each in settings.models)
    return trims or settings.method == "slerp" or settings.rescale == "l1"


def recipe_for(settings: Merge, *, name: str, shape: Sequence[int], seed: int, own: Own | None, full: bool) -> Recipe:
    """Return the recipe for one tensor.

    Args:
        settings: of the merge.
        name: of the tensor.
        shape: of the tensor.
        seed: of the run.
        own: the user's function where the method is theirs.
        full: whether the result is the merged tensor, or its task vector.
    """
    if own is not None:
        return _Own(settings, own, shape=tuple(shape), name=name, seed=seed)
    if settings.method == "linear":
        return _Linear(settings)
    if settings.method == "slerp":
        return _Slerp(settings)
    return _Vectors(settings, name=name, shape=shape, seed=seed, full=full)


class _Blind:
    """What recipes share that take no looks and have no task vectors."""

    looks = 0
    moved = 0.0

    def __init__(self) -> None:
        self.norms: list[float] = []

    def look(self, number: int, block: Block) -> None:
        raise AssertionError("takes no looks")

    def settle(self, number: int) -> None:
        raise AssertionError("takes no looks")


class _Own(_Blind):
    def __init__(self, settings: Merge, own: Own, *, shape: tuple[int, ...], name: str, seed: int) -> None:
        super().__init__()
        self._settings, self._own, self._shape, self._name, self._seed = settings, own, shape, name, seed

    def merge(self, block: Block) -> Tensor:
        base = None if self._settings.base is None else block.base().view(self._shape)
        models = [block.value(i).view(self._shape) for i in range(len(self._settings.models))]
        weights = [each.weight for each in self._settings.models]
        where = f"the merge method {self._settings.method} on {self._name}"
        try:
            found = self._own(base, models, weights=weights, seed=self._seed)
        except Exception as error:
            raise ConfigError(f"{where} failed: {type(error).__name__}: {error}") from error
        if not isinstance(found, Tensor) or tuple(found.shape) != self._shape:
            shape = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
            raise ConfigError(f"{where} returned {shape}; expected a tensor of shape {self._shape}")
        return found.float().contiguous().view(-1)


class _Linear(_Blind):
    def __init__(self, settings: Merge) -> None:
        super().__init__()
        self._settings = settings

    def merge(self, block: Block) -> Tensor:
        models = self._settings.models
        tensors = [block.value(i) for i in range(len(models))]
        merged = linear(tensors, [each.weight for each in models], normalize=self._settings.normalized)
        return merged.mul_(self._settings.scale) if self._settings.scale != 1 else merged


class _Slerp(_Blind):
    looks = 1

    def __init__(self, settings: Merge) -> None:
        super().__init__()
        weights = [each.weight for each in settings.models]
        self._from_base = len(weights) == 1
        self._t = weights[0] if self._from_base else weights[1] / sum(weights)
        self._found = Products()
        self._factors = (0.0, 0.0)

    def _ends(self, block: Block) -> tuple[Tensor, Tensor]:
        return (block.base(), block.value(0)) if self._from_base else (block.value(0), block.value(1))

    def look(self, number: int, block: Block) -> None:
        self._found = self._found + products(*self._ends(block))

    def settle(self, number: int) -> None:
        self._factors = coefficients(self._t, self._found)

    def merge(self, block: Block) -> Tensor:
        return slerp(*self._ends(block), self._factors)


class _Vectors:
    """Methods that add up task vectors: each is sparsified, then they are combined and added to the base."""

    def __init__(self, settings: Merge, *, name: str, shape: Sequence[int], seed: int, full: bool) -> None:
        self._settings, self._name, self._seed, self._full = settings, name, seed, full
        self._models = settings.models
        self._random = settings.method.startswith("dare")
        self._della = settings.method.startswith("della")
        self._elects = settings.method in ("ties", "dare-ties", "della")
        count = 1
        for size in shape:
            count *= size
        self._cuts = [self._cut(each, count) for each in self._models]
        self._l1 = settings.rescale == "l1" and (self._random or self._della)
        self._sums = [[0.0, 0.0] for _ in self._models]
        self._settled: set[int] = set()
        self.norms = [0.0] * len(self._models)
        self.moved = 0.0
        self.looks = 2 if any(cut is not None for cut in self._cuts) else int(self._l1)

    def _cut(self, model: MergedModel, count: int) -> Cut | None:
        share = model.density if self._settings.method == "ties" else model.trim
        return None if share is None else Cut.of(count, share)

    def look(self, number: int, block: Block) -> None:
        for index, cut in enumerate(self._cuts):
            if self._l1 and number == 0:
                self._look_at_sums(index, block)
            if cut is None or index in self._settled:
                continue
            if number % 2 == 0:
                part = block.part(cut.part(block.stop - block.start))
                cut.tally(self._dropped(index, part.delta(index), part))
            else:
                cut.collect(block.start, self._dropped(index, block.delta(index), block))

    def _look_at_sums(self, index: int, block: Block) -> None:
        """Add up the L1 norms of a task vector before and after the drop."""
        delta = block.delta(index)
        whole = float(delta.abs().sum())
        left = float(self._dropped(index, delta, block).abs().sum())
        self._sums[index][0] += whole
        self._sums[index][1] += left

    def settle(self, number: int) -> None:
        for index, cut in enumerate(self._cuts):
            if cut is None or index in self._settled:
                continue
            if number % 2 == 0:
                if cut.overflows:
                    raise self._not_finite(self._models[index])
                cut.bound()
            elif cut.settle():
                self._settled.add(index)
            else:
                self.looks = number + 3

    def merge(self, block: Block) -> Tensor:
        deltas = [block.delta(i) for i in range(len(self._models))]
        self._measure(deltas)
        deltas = [self._sparse(i, delta, block) for i, delta in enumerate(deltas)]
        weights = [each.weight for each in self._models]
        join = elect_and_merge if self._elects else combine
        merged = join(deltas, weights, normalize=self._settings.normalized)
        if self._settings.scale != 1:
            merged.mul_(self._settings.scale)
        self.moved += float(torch.dot(merged, merged))
        return merged.add_(block.base()) if self._full else merged

    def _sparse(self, index: int, delta: Tensor, block: Block) -> Tensor:
        """Return the task vector as it enters the sum, in place."""
        model, cut = self._models[index], self._cuts[index]
        delta = self._dropped(index, delta, block)
        if cut is not None:
            delta = keep(delta, cut.value, cut.ties[block.start])
        factor = self._factor(index, model)
        return delta.mul_(factor) if factor != 1 else delta

    def _dropped(self, index: int, delta: Tensor, block: Block) -> Tensor:
        """Return the task vector after the random drop, in place; DARE's is not rescaled yet."""
        model = self._models[index]
        density = 1.0 if model.density is None else model.density
        if not (self._random or self._della) or density >= 1:
            return delta
        bits = draw_bits(self._seed, self._name, index, block.start, block.stop)
        if self._random:
            return drop(delta, bits, density)
        epsilon = EPSILON if model.epsilon is None else model.epsilon
        rows = delta.view(-1, block.columns)
        rescale = self._settings.rescale == "expectation"
        return drop_smallest(rows, bits, density=density, epsilon=epsilon, rescale=rescale).view(-1)

    def _factor(self, index: int, model: MergedModel) -> float:
        if self._l1:
            before, after = self._sums[index]
            return before / after if before > 1e-7 and after > 1e-7 else 1.0
        if self._random and self._settings.rescale == "expectation" and model.density is not None:
            return 1.0 / chance(model.density)
        return 1.0

    def _not_finite(self, model: MergedModel) -> DataError:
        found = f"{self._name}: the task vector of {model.model} holds values that are not finite"
        return DataError(found, tensor=self._name)

    def _measure(self, deltas: Sequence[Tensor]) -> None:
        """Add up the squared norms of a block; what is not finite is an error here and not a silent NaN."""
        squares = [float(torch.dot(delta, delta)) for delta in deltas]
        for model, delta, square in zip(self._models, deltas, squares, strict=True):
            if square != square or (square == float("inf") and not bool(torch.isfinite(delta).all())):
                raise self._not_finite(model)
        self.norms = [old + new for old, new in zip(self.norms, squares, strict=True)]
