"""What each kind of index stores of a part of the pool, and how it scores it.

Passages lie in tiles of `TILE`, vector by vector (tiles, P, TILE, D): one product of a tile then holds the products
of a query vector with the first vectors of all its passages, then with the second, and so on, and the maximum over
the passage's vectors runs over whole rows, which costs a tenth of the product. Queries go in parts whose products
stay in the processor's cache.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ablab.models.search.codes import EightBit, Residual, to_eight_bit

#: Passages of a tile, and tiles multiplied at once where a passage is one vector.
TILE, _FLAT = 128, 32
#: Rows of queries (queries x their vectors) multiplied at once, on a processor and on an accelerator.
_ROWS_CPU, _ROWS_CUDA = 256, 8192
#: Room for rounding in the bound on a score, as a share of the largest product.
_ROUNDING = 1e-5


@dataclass(frozen=True, kw_only=True)
class Queries:
    """Queries as shards take them: fp32 vectors (Q, T, D); vectors that do not count are zero and add nothing."""

    vectors: Tensor

    @property
    def rows(self) -> Tensor:
        """All vectors, (Q * T, D)."""
        return self.vectors.flatten(0, 1)


def to_tiles(passages: Tensor, mask: Tensor | None = None) -> Tensor:
    """Return passages (n, P, D) as tiles (ceil(n / TILE), P, TILE, D), the last one filled up with zeros.

    A vector that does not count (mask False) is replaced by one of the same passage that does, which changes no
    maximum.

    Raises:
        ValueError: a passage has no vector that counts.
    """
    if mask is not None:
        passages = fill_masked(passages, mask)
    count, vectors, width = passages.shape
    tiles = -(-count // TILE)
    padded = passages.new_zeros((tiles * TILE, vectors, width))
    padded[:count] = passages
    return padded.view(tiles, TILE, vectors, width).transpose(1, 2).contiguous()


def from_tiles(tiles: Tensor, passages: int) -> Tensor:
    """Return tiles as passages (n, P, D)."""
    return tiles.transpose(1, 2).reshape(-1, tiles.size(1), tiles.size(3))[:passages]


def fill_masked(passages: Tensor, mask: Tensor) -> Tensor:
    """Return passages with masked vectors replaced by the first one that counts."""
    if mask.shape != passages.shape[:2] or mask.dtype != torch.bool:
        raise ValueError(f"mask: expected bool {tuple(passages.shape[:2])}, found {mask.dtype} {tuple(mask.shape)}")
    if not mask.any(1).all():
        empty = int((~mask.any(1)).nonzero()[0])
        raise ValueError(f"passage {empty} of the batch has no vector that counts")
    first = mask.int().argmax(1)
    return torch.where(mask[..., None], passages, passages[torch.arange(len(passages)), first][:, None])


def _by_tile(
    queries: Tensor, vectors: int, tiles: int, passages: int, multiply: Callable[[Tensor, slice, Tensor], Tensor]
) -> Tensor:
    """Return scores (Q, passages): products of each tile by parts of the queries, maximum, sum.

    Args:
        queries: (Q, T, D) as `multiply` takes them.
        vectors: vectors of a passage.
        tiles: how many.
        passages: how many count.
        multiply: (rows, tiles, out) to the products of rows with these tiles, in `out`.
    """
    count, length, width = queries.shape
    device = queries.device
    part = max(1, (_ROWS_CPU if device.type == "cpu" else _ROWS_CUDA) // length)
    kind = torch.int32 if queries.dtype == torch.int8 else queries.dtype
    step = 1 if vectors > 1 else _FLAT
    buffer = torch.empty(min(part, count) * length * vectors * min(step, tiles) * TILE, dtype=kind, device=device)
    largest = torch.empty((min(part, count) * length, TILE), dtype=kind, device=device)
    scores = torch.empty((count, tiles * TILE), device=device)
    for tile in range(0, tiles, step):
        several = slice(tile, min(tile + step, tiles))
        wide = (several.stop - tile) * TILE
        for begin in range(0, count, part):
            rows = queries[begin : begin + part].reshape(-1, width)
            out = buffer[: len(rows) * vectors * wide].view(len(rows), vectors * wide)
            peaks = multiply(rows, several, out)
            if vectors > 1:
                peaks = torch.amax(peaks.view(len(rows), vectors, TILE), 1, out=largest[: len(rows)])
            summed = peaks.view(-1, length, wide).sum(1, dtype=torch.float32)
            scores[begin : begin + part, tile * TILE : tile * TILE + wide] = summed
    return scores[:, :passages]


class ExactShard:
    """Vectors as they are, fp32 or bf16; products in their type, sums in fp32."""

    def __init__(self, tiles: Tensor, passages: int) -> None:
        self.tiles, self.passages = tiles, passages

    def scores(self, queries: Queries) -> Tensor:
        """Return scores fp32 (Q, passages)."""

        def multiply(rows: Tensor, tiles: slice, out: Tensor) -> Tensor:
            return torch.mm(rows, self.tiles[tiles].flatten(0, 2).T, out=out)

        wanted = queries.vectors.to(self.tiles.dtype)
        return _by_tile(wanted, self.tiles.size(1), self.tiles.size(0), self.passages, multiply)

    def vectors(self) -> Tensor:
        """Return the passages, (n, P, D)."""
        return from_tiles(self.tiles, self.passages)


class EightBitShard:
    """Codes of 8 bits; products in integers where the processor has them, else of decoded tiles."""

    def __init__(self, codes: Tensor, scale: Tensor, passages: int) -> None:
        self.codes, self.scale, self.passages = codes, scale, passages
        self._integers = codes.device.type == "cpu" and torch.cpu._is_vnni_supported()

    def scores(self, queries: Queries) -> Tensor:
        """Return scores fp32 (Q, passages)."""
        if not self._integers:
            return self._decoded(queries)
        # One scale a query keeps the sum over its vectors in the units of the integers.
        coded = to_eight_bit(queries.vectors)
        return self.products(coded) * coded.scale[:, None] * self.scale[: self.passages]

    def products(self, coded: EightBit) -> Tensor:
        """Return the sum of the largest integer products, fp32 (Q, passages), not scaled."""

        def multiply(rows: Tensor, tiles: slice, out: Tensor) -> Tensor:
            return torch._int_mm(rows, self.codes[tiles].flatten(0, 2).T, out=out)

        return _by_tile(coded.codes, self.codes.size(1), self.codes.size(0), self.passages, multiply)

    def _decoded(self, queries: Queries) -> Tensor:
        def multiply(rows: Tensor, tiles: slice, out: Tensor) -> Tensor:
            return torch.mm(rows, self.codes[tiles].flatten(0, 2).float().T, out=out)

        tiles, vectors, *_ = self.codes.shape
        return _by_tile(queries.vectors, vectors, tiles, self.passages, multiply) * self.scale[: self.passages]


class BoundedShard:
    """Vectors with their 8-bit codes beside them: a pass over the codes bounds every score, and only what may be
    among the best is scored exactly. For processors that multiply bytes faster than they multiply the vectors.
    """

    def __init__(
        self, vectors: Tensor, codes: Tensor, scale: Tensor, error: Tensor, norm: Tensor, passages: int
    ) -> None:
        self._vectors, self.passages = vectors, passages
        self._codes = EightBitShard(codes, scale, passages)
        self._scale, self._error, self._norm = scale[:passages], error[:passages], norm[:passages]

    def bounds(self, queries: Queries) -> tuple[Tensor, Tensor]:
        """Return scores and how far they may be off, both fp32 (Q, passages).

        |<q, x> - <q', x'>| <= |q| |x - x'| + |q - q'| |x'| for coded q', x'; the maximum over a passage's vectors is
        off by no more than the worst of them, and the sum over query vectors by no more than the sum.
        """
        coded = to_eight_bit(queries.vectors)
        scores = self._codes.products(coded) * coded.scale[:, None] * self._scale
        lost = (queries.vectors - coded.codes * coded.scale[:, None, None]).norm(dim=2).sum(1)
        norms = queries.vectors.norm(dim=2).sum(1)
        slack = torch.outer(norms, self._error) + torch.outer(lost + _ROUNDING * norms, self._norm)
        return scores, slack

    def exact(self, query: Tensor, places: Tensor) -> Tensor:
        """Return the exact scores of one query (T, D) with the passages at these places, fp32."""
        chosen = self._vectors.index_select(0, places).float()
        products = chosen.flatten(0, 1) @ query.T
        return products.view(*chosen.shape[:2], len(query)).amax(1).sum(1)


class ResidualShard:
    """Centroids and packed residuals, decoded tile by tile."""

    def __init__(self, codec: Residual, nearest: Tensor, packed: Tensor, passages: int) -> None:
        self._codec, self.nearest, self.packed, self.passages = codec, nearest, packed, passages

    def scores(self, queries: Queries) -> Tensor:
        """Return scores fp32 (Q, passages)."""
        made: tuple[int, Tensor] | None = None

        def multiply(rows: Tensor, tiles: slice, out: Tensor) -> Tensor:
            nonlocal made
            if made is None or made[0] != tiles.start:
                decoded = self._codec.decode(self.nearest[tiles], self.packed[tiles])
                made = (tiles.start, decoded.flatten(0, 2).T)
            return torch.mm(rows, made[1], out=out)

        return _by_tile(queries.vectors, self.nearest.size(1), self.nearest.size(0), self.passages, multiply)


AnyShard = ExactShard | EightBitShard | BoundedShard | ResidualShard
