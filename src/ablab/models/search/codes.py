"""Codecs of vectors: 8 bits a number with the bounds of their error, and residuals of the nearest centroid."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

#: Vectors of the sample that centroids are learnt from, for each centroid; and rounds of k-means.
_SAMPLES, _ROUNDS = 32, 4
#: Vectors whose nearest centroid is looked for at once.
_AT_ONCE = 1 << 14


@dataclass(frozen=True, kw_only=True)
class EightBit:
    """Passages in 8 bits a number: vector = code x scale, one scale a passage.

    Args:
        codes: int8 (..., P, D) as given.
        scale: fp32, one a passage.
        error: largest norm of what a vector lost, one a passage.
        norm: largest norm of a coded vector, one a passage.
    """

    codes: Tensor
    scale: Tensor
    error: Tensor
    norm: Tensor


def to_eight_bit(vectors: Tensor) -> EightBit:
    """Return the codes of passages (n, P, D)."""
    vectors = vectors.float()
    scale = vectors.abs().amax((1, 2)).clamp_min(torch.finfo(torch.float32).tiny) / 127
    codes = (vectors / scale[:, None, None]).round().clamp(-127, 127)
    decoded = codes * scale[:, None, None]
    return EightBit(
        codes=codes.to(torch.int8),
        scale=scale,
        error=(vectors - decoded).norm(dim=2).amax(1),
        norm=decoded.norm(dim=2).amax(1),
    )


@dataclass(frozen=True, kw_only=True)
class Residual:
    """A vector as its nearest centroid and what is left in `bits` a number (Santhanam et al. 2022, arXiv 2112.01488).

    Args:
        centroids: fp32 (C, D).
        cuts: 2^bits - 1 bounds between buckets of residuals.
        levels: 2^bits values, what each bucket decodes to.
        bits: 1, 2, 4 or 8.
        unit: decoded vectors are scaled to length 1.
    """

    centroids: Tensor
    cuts: Tensor
    levels: Tensor
    bits: int
    unit: bool

    def tensors(self) -> dict[str, Tensor]:
        """Return what is stored."""
        return {"centroids": self.centroids, "cuts": self.cuts, "levels": self.levels}

    def settings(self) -> dict[str, Any]:
        """Return what is stored beside the tensors."""
        return {"bits": self.bits, "unit": self.unit, "centroids": self.centroids.size(0)}

    def encode(self, vectors: Tensor) -> tuple[Tensor, Tensor]:
        """Return nearest centroids int32 (...) and packed codes uint8 (..., D * bits / 8) of vectors (..., D)."""
        flat = vectors.reshape(-1, vectors.size(-1)).float()
        nearest = nearest_centroids(flat, self.centroids)
        buckets = torch.bucketize(flat - self.centroids[nearest], self.cuts).to(torch.uint8)
        packed = _pack(buckets, self.bits)
        shape = vectors.shape[:-1]
        return nearest.to(torch.int32).view(shape), packed.view(*shape, packed.size(-1))

    def decode(self, nearest: Tensor, packed: Tensor) -> Tensor:
        """Return fp32 vectors (..., D)."""
        values = self._table()[packed.int()].flatten(-2)
        vectors = self.centroids[nearest.int()] + values
        return torch.nn.functional.normalize(vectors, dim=-1) if self.unit else vectors

    def _table(self) -> Tensor:
        """Return what each byte decodes to, (256, numbers a byte)."""
        shifts = torch.arange(0, 8, self.bits, device=self.levels.device)
        buckets = (torch.arange(256, device=self.levels.device)[:, None] >> shifts) & (2**self.bits - 1)
        return self.levels[buckets]


def _pack(buckets: Tensor, bits: int) -> Tensor:
    """Return buckets (n, D) packed into bytes (n, D * bits / 8), the first number in the lowest bits."""
    a_byte = 8 // bits
    parts = buckets.view(buckets.size(0), -1, a_byte)
    shifts = torch.arange(0, 8, bits, dtype=torch.uint8)
    return (parts << shifts).sum(-1, dtype=torch.uint8)


def learn_residual(sample: Tensor, *, bits: int, centroids: int, seed: int) -> Residual:
    """Return a codec learnt from vectors (n, D): k-means for the centroids, equal shares for the buckets.

    Raises:
        ValueError: bits is not 1, 2, 4 or 8, or D is no multiple of the numbers of a byte.
    """
    if bits not in (1, 2, 4, 8) or sample.size(1) % (8 // bits):
        raise ValueError(f"bits {bits} for vectors of {sample.size(1)} numbers; expected 1, 2, 4 or 8, filling bytes")
    sample = sample.float()
    norms = sample.norm(dim=1)
    unit = bool(((norms - 1).abs() < 1e-2).all())
    centres = k_means(sample, centroids, seed=seed)
    rest = (sample - centres[nearest_centroids(sample, centres)]).flatten()
    # Quantiles of a million residuals say as much as those of all.
    rest = rest[:: max(1, len(rest) // 1_000_000)].sort().values
    count = 2**bits
    edges = torch.arange(1, count) * len(rest) // count
    middles = ((torch.arange(count) + 0.5) * len(rest) / count).long().clamp_max(len(rest) - 1)
    return Residual(centroids=centres, cuts=rest[edges], levels=rest[middles], bits=bits, unit=unit)


def default_centroids(vectors: int) -> int:
    """Return how many centroids a pool of vectors gets: about 4 times the root of their number, a power of two."""
    if vectors < 1:
        return 1
    return int(min(2 ** math.floor(math.log2(4 * math.sqrt(vectors))), 1 << 16, vectors))


def sample_size(centroids: int) -> int:
    """Return how many vectors centroids are learnt from."""
    return _SAMPLES * centroids


def k_means(sample: Tensor, centroids: int, *, seed: int) -> Tensor:
    """Return centroids (C, D) of vectors (n, D) after a few rounds of Lloyd's algorithm from a random start.

    A centroid without vectors starts again at the vector that is farthest from its own.
    """
    generator = torch.Generator().manual_seed(seed)
    count = min(centroids, sample.size(0))
    centres = sample[torch.randperm(sample.size(0), generator=generator)[:count]].clone()
    for _ in range(_ROUNDS):
        nearest = nearest_centroids(sample, centres)
        sums = torch.zeros_like(centres).index_add_(0, nearest, sample)
        counts = torch.bincount(nearest, minlength=count)
        empty = counts == 0
        centres = sums / counts.clamp_min(1)[:, None]
        if empty.any():
            far = (sample - centres[nearest]).square().sum(1).topk(int(empty.sum())).indices
            centres[empty] = sample[far]
    return centres


def nearest_centroids(vectors: Tensor, centroids: Tensor) -> Tensor:
    """Return the nearest centroid of each vector by Euclidean distance, int64 (n,)."""
    half = centroids.square().sum(1) / 2
    parts = [(part @ centroids.T - half).argmax(1) for part in vectors.split(_AT_ONCE)]
    return torch.cat(parts) if parts else torch.zeros(0, dtype=torch.int64)
