"""Which entries of a tensor are the k largest by magnitude: exactly, without sorting, block by block.

A first look counts the magnitudes of a sample by the upper halves of their fp32 bits, which order like the magnitudes,
and finds two bounds that the border most likely lies between. A second look counts what is above and collects what is
between: a few per cent, of which the border is selected exactly. Where the sample misled, a third and fourth look do
the same with all entries counted, and then no doubt is left. A look takes the blocks in any order.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Self

import numpy as np
import torch
from torch import Tensor

_BINS = 1 << 15
#: Upper half of infinity; whatever is not finite is here or above.
_FINITE = 0x7F80
#: Tensors with fewer entries are counted whole; of larger ones, this share of each block.
WHOLE, SHARE = 1 << 20, 16
#: How many standard deviations the bounds lie from the estimate, and how many neighbours count as one observation:
#: entries of a row resemble each other.
_DEVIATIONS, _ALIKE = 4.0, 64


@dataclass(kw_only=True)
class Cut:
    """The border between the `kept` largest magnitudes of a tensor of `count` entries and the rest.

    After two looks (four where `settle` says so), `value` is the smallest magnitude that stays; of those equal to it,
    the block that begins at a place keeps `ties[place]`, below zero meaning all.
    """

    kept: int
    count: int
    value: float = 0.0
    ties: dict[int, int] = field(default_factory=dict)
    sampled: bool = False
    _counts: np.ndarray = field(default_factory=lambda: np.zeros(_BINS, dtype=np.int64))
    _bounds: tuple[float, float] = (0.0, 0.0)
    _above: int = 0
    _between: dict[int, np.ndarray] = field(default_factory=dict)

    @classmethod
    def of(cls, count: int, density: float) -> Self | None:
        """Return the cut that keeps max(1, int(density count)) entries; None where all stay."""
        kept = max(1, int(density * count))
        return None if kept >= count else cls(kept=kept, count=count, sampled=count > WHOLE)

    def part(self, entries: int) -> int:
        """Return how many entries of a block the first look wants."""
        return -(-entries // SHARE) if self.sampled else entries

    def tally(self, block: Tensor) -> None:
        """Take the first look at (the wanted part of) a contiguous fp32 block."""
        self._counts += _histogram(block)

    def collect(self, start: int, block: Tensor) -> None:
        """Take the second look at the block that begins at `start`."""
        above, between = _divide(block, *self._bounds)
        self._above += above
        self._between[start] = between

    @property
    def overflows(self) -> bool:
        """Whether an entry is infinite or no number, as far as the first look saw."""
        return bool(self._counts[_FINITE:].any())

    def bound(self) -> None:
        """Find the bounds, after the first look."""
        seen = int(self._counts.sum())
        share = self.kept / self.count
        slack = _DEVIATIONS * math.sqrt(share * (1 - share) * _ALIKE / seen) if self.sampled else 0.0
        below = np.cumsum(self._counts[::-1])
        high, low = (
            _BINS - 1 - int(np.searchsorted(below, min(max(1, math.ceil(rank)), seen)))
            for rank in ((share - slack) * seen, (share + slack) * seen)
        )
        if not self.sampled:
            low = high = _BINS - 1 - int(np.searchsorted(below, self.kept))
        bits = np.array([low << 16, (high << 16) | 0xFFFF], dtype=np.uint32)
        first, last = bits.view(np.float32).tolist()
        self._bounds = (first, last)

    def settle(self) -> bool:
        """Find the border, after the second look; False where the bounds missed it and all has to be counted."""
        starts = sorted(self._between)
        between = np.concatenate([self._between[start] for start in starts])
        rank = self.kept - self._above
        if not 0 < rank <= len(between):
            self._again()
            return False
        border = np.partition(between, len(between) - rank)[len(between) - rank]
        left = rank - int(np.count_nonzero(between > border))
        for start in starts:
            here = int(np.count_nonzero(self._between[start] == border))
            self.ties[start] = -1 if here <= left else left
            left = max(0, left - here)
        self._between.clear()
        self.value = float(border)
        return True

    def _again(self) -> None:
        self.sampled = False
        self._counts[:] = 0
        self._above = 0
        self._between.clear()


def cut_at(block: Tensor, cut: Cut) -> tuple[float, int]:
    """Return border and ties of a tensor that is one block."""
    flat = block.reshape(-1)
    for _ in range(2):
        cut.tally(flat[: cut.part(flat.numel())])
        cut.bound()
        cut.collect(0, flat)
        if cut.settle():
            break
    return cut.value, cut.ties[0]


def keep(block: Tensor, value: float, ties: int) -> Tensor:
    """Set entries to 0 that are smaller than `value` in magnitude, and of those equal to it all but the first `ties`.

    Works in place on a contiguous fp32 tensor; `ties` below 0 keeps all.
    """
    if value <= 0:
        return block
    flat = block.view(-1)
    if ties > 0:
        equal = torch.nonzero(flat.abs() == value).view(-1)
        flat[equal[ties:]] = 0.0
    # hardshrink keeps what is greater than its bound.
    bound = value if ties == 0 else float(np.nextafter(np.float32(value), np.float32(0)))
    flat.copy_(torch.nn.functional.hardshrink(flat, bound))
    return block


def _histogram(block: Tensor) -> np.ndarray:
    """Return how many entries have each upper half of a magnitude."""
    if block.device.type != "cpu":
        halves = (block.view(torch.int32) >> 16) & (_BINS - 1)
        return torch.bincount(halves.long().view(-1), minlength=_BINS).cpu().numpy()
    # The upper half of a little-endian word is its second; the sign is its first bit.
    both = np.bincount(block.view(-1).numpy().view("<u2")[1::2], minlength=2 * _BINS)
    folded: np.ndarray = both[:_BINS] + both[_BINS:]
    return folded


def _divide(block: Tensor, low: float, high: float) -> tuple[int, np.ndarray]:
    """Return how many magnitudes exceed `high`, and those from `low` to `high` in the order of the entries, fp32."""
    if block.device.type != "cpu":
        size = block.abs().view(-1)
        return int((size > high).sum()), size[(size >= low) & (size <= high)].cpu().numpy()
    flat = np.abs(block.view(-1).numpy())
    inside = flat > np.float32(high)
    above = int(np.count_nonzero(inside))
    # What is at least `low` without what is above: xor of the two.
    inside ^= flat >= np.float32(low)
    return above, flat[inside]
