"""Several conversations in few rows: packing with attention kept inside each, and the order that batches are drawn in.

A packed row holds several samples one behind the other; `segments` says which token is whose. Position ids alone do
not keep them apart, so the model gets an explicit 4D mask. Losses of packed and of separate samples are equal up to
rounding, so how a batch is packed is no part of what it computes.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ablab.contract.seeds import stream_seed
from ablab.data.templates import IGNORE, Encoded


@dataclass(frozen=True, kw_only=True, slots=True)
class Packed:
    """Rows of samples; R rows of T tokens.

    Args:
        ids: int64 (R, T).
        labels: int64 (R, T), not shifted; the first token of each sample is never a target.
        positions: int64 (R, T), from 0 in each sample.
        segments: int32 (R, T), the sample's number from 1 in each row; 0 is padding.
        order: which sample stands where, in the order of rows: sample numbers, each once.
    """

    ids: Tensor
    labels: Tensor
    positions: Tensor
    segments: Tensor
    order: tuple[int, ...]

    @property
    def padding(self) -> float:
        """Share of the tokens that are padding."""
        return float((self.segments == 0).float().mean())

    def mask(self, dtype: torch.dtype | None = None) -> Tensor:
        """Return the attention mask (R, 1, T, T): a token sees those of its own sample up to itself.

        Args:
            dtype: None makes booleans (true is seen), as SDPA takes them; a type makes what is added to the scores
                (0 or the type's lowest value), as the eager implementation wants it.
        """
        return block_mask(self.segments, dtype=dtype)


def block_mask(segments: Tensor, *, dtype: torch.dtype | None = None) -> Tensor:
    """Return the mask of `Packed.mask` from segments (R, T); a padding token sees itself, so that no row is empty."""
    width = segments.size(1)
    same = segments[:, :, None] == segments[:, None, :]
    causal = torch.ones(width, width, dtype=torch.bool, device=segments.device).tril()
    seen = same & causal & (segments != 0)[:, None, :]
    seen |= torch.eye(width, dtype=torch.bool, device=segments.device)
    seen = seen[:, None]
    if dtype is None:
        return seen
    return torch.zeros(seen.shape, dtype=dtype, device=seen.device).masked_fill(~seen, torch.finfo(dtype).min)


def pack(samples: Sequence[Encoded], *, row_tokens: int, pad: int) -> Packed:
    """Return samples in as few rows of about `row_tokens` as hold them, as even as can be, so that little is padding.

    Args:
        samples: at least one; one longer than `row_tokens` makes the rows longer.
        row_tokens: tokens a row should hold. Attention costs grow with it, padding shrinks.
        pad: id of padding tokens.
    """
    lengths = [len(sample) for sample in samples]
    rows = spread(lengths, row_tokens=row_tokens)
    width = max(sum(lengths[i] for i in row) for row in rows)
    ids = np.full((len(rows), width), pad, dtype=np.int64)
    labels = np.full((len(rows), width), IGNORE, dtype=np.int64)
    positions = np.zeros((len(rows), width), dtype=np.int64)
    segments = np.zeros((len(rows), width), dtype=np.int32)
    for number, row in enumerate(rows):
        start = 0
        for segment, index in enumerate(row, start=1):
            stop = start + lengths[index]
            ids[number, start:stop] = samples[index].ids
            labels[number, start:stop] = samples[index].labels
            labels[number, start] = IGNORE
            positions[number, start:stop] = np.arange(lengths[index])
            segments[number, start:stop] = segment
            start = stop
    made = (torch.from_numpy(array) for array in (ids, labels, positions, segments))
    return Packed(**dict(zip(("ids", "labels", "positions", "segments"), made, strict=True)), order=_flat(rows))


def _flat(rows: Sequence[Sequence[int]]) -> tuple[int, ...]:
    return tuple(index for row in rows for index in row)


#: Numbers of rows tried above the fewest, beside those that give every row equally many samples.
_TRIED = 3


def spread(lengths: Sequence[int], *, row_tokens: int) -> list[list[int]]:
    """Return sample numbers by row: longest first into the row with most room, for the row count with least padding."""
    most = max(row_tokens, max(lengths))
    least = -(-sum(lengths) // most)
    best: tuple[int, list[list[int]]] | None = None
    for count in _counts(len(lengths), least):
        rows = _even(lengths, count)
        width = max(sum(lengths[i] for i in row) for row in rows)
        if width <= most * 1.1 and (best is None or width * count < best[0]):
            best = (width * count, rows)
    if best is not None:
        return best[1]
    return _even(lengths, min(least + _TRIED, len(lengths)))


def _counts(samples: int, least: int) -> list[int]:
    """Return numbers of rows worth trying, the fewest first: samples of like length fill rows of equally many best."""
    near = range(least, min(least + _TRIED, samples) + 1)
    equal = (-(-samples // each) for each in range(1, samples // least + 1))
    return sorted({*near, *equal})


def _even(lengths: Sequence[int], count: int) -> list[list[int]]:
    rows: list[list[int]] = [[] for _ in range(count)]
    filled = [(0, place) for place in range(count)]
    for index in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        tokens, place = filled[0]
        rows[place].append(index)
        heapq.heapreplace(filled, (tokens + lengths[index], place))
    return [sorted(row) for row in rows if row]


def batching_order(
    lengths: np.ndarray, kinds: np.ndarray, *, batch: int, seed: int, epoch: int, window: int = 32
) -> np.ndarray:
    """Return all sample ids of an epoch once, so that a step's samples are of like length and one kind.

    A seeded permutation is cut into windows; in each, samples are sorted by kind and length and cut into groups of
    `batch`, and all groups are shuffled. What is left of a kind and window makes mixed groups, laid last, as LLaVA's
    sampler does. An epoch begins where the last one's steps left off (`ablab.training.batches.Stream`).

    Args:
        lengths: of each sample, int (N,).
        kinds: what may not be mixed (number of images, 0 for text alone), int (N,).
        batch: samples a step.
        seed, epoch: of the stream `data-order`.
        window: groups of a window.
    """
    generator = np.random.default_rng(stream_seed(seed, "data-order", epoch))
    count = len(lengths)
    shuffled = generator.permutation(count).astype(np.int64)
    head = min(-epoch * count % batch, count)
    groups: list[np.ndarray] = []
    rest: list[np.ndarray] = []
    for low in range(head, count, window * batch):
        part = shuffled[low : low + window * batch]
        for kind in np.unique(kinds[part]):
            own = part[kinds[part] == kind]
            own = own[np.argsort(lengths[own], kind="stable")]
            # What is left over is drawn at random, not always the longest.
            left = np.sort(generator.choice(len(own), len(own) % batch, replace=False))
            rest.append(own[left])
            whole = np.delete(own, left)
            groups.extend(whole.reshape(-1, batch))
    mixed = np.concatenate(rest) if rest else shuffled[:0]
    order = [groups[i] for i in generator.permutation(len(groups))]
    return np.concatenate([shuffled[:head], *order, generator.permutation(mixed)])
