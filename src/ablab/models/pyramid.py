"""Multi-scale features of a plain vision transformer, and dropping the least telling of them scale by scale.

A plain ViT has one grid at every layer, so the scales are made by pooling: deeper layers at finer scales. Where a
feature is dropped, zeros and a mask stand in its place, since a pixel shuffle or a convolution needs whole grids; whole
blocks are dropped together for the same reason. Which attention a feature received is the tower's to tell
(`ablab.models.vision`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ablab.contract.failure import ConfigError

Fusion = Literal["concatenate", "average", "attention"]
By = Literal["attention", "random", "uniform"]


@dataclass(frozen=True, kw_only=True)
class Scale:
    """Features of one scale, row by row: (B, N, V), their grid, and which were kept (B, N); None keeps all."""

    features: Tensor
    grid: tuple[int, int]
    kept: Tensor | None = None


@dataclass(frozen=True, kw_only=True)
class Dropping:
    """How features are dropped.

    Args:
        rates: share dropped of each scale.
        by: attention (the least received goes first), random, or uniform (evenly over the image).
        least: features that a scale keeps at least.
        block: side of the blocks that go together; 2 where a pixel shuffle follows.
    """

    rates: tuple[float, ...] = (0.5, 0.3, 0.1)
    by: By = "attention"
    least: int = 64
    block: int = 2

    def kept(self, place: int, grid: tuple[int, int]) -> int:
        """Return how many blocks a scale keeps at full rate."""
        return self._kept(self.rates[place], grid)

    def _kept(self, rate: float, grid: tuple[int, int]) -> int:
        blocks = (grid[0] // self.block) * (grid[1] // self.block)
        least = -(-self.least // self.block**2)
        return min(blocks, max(least, round(blocks * (1 - rate))))

    def mask(
        self,
        place: int,
        *,
        grid: tuple[int, int],
        batch: int,
        received: Tensor | None,
        warm: float = 1.0,
        generator: torch.Generator | None = None,
        device: torch.device | None = None,
    ) -> Tensor:
        """Return which features of a scale are kept, bool (B, N).

        Args:
            place: of the scale, coarsest first.
            grid: (rows, columns), multiples of `block`.
            batch: images B.
            received: attention received (B, N), for `by` attention.
            warm: share of the rate in force, 0 to 1.
            generator: for `by` random, draws what all images drop; None draws for each, from the default generator.
            device: of the mask where nothing was received.

        Raises:
            ConfigError: a grid that blocks do not fill, or no attention to go by.
        """
        rows, columns = grid
        if rows % self.block or columns % self.block:
            raise ConfigError(
                f"a grid of {rows} x {columns} is not made of whole blocks of {self.block} x {self.block}", grid=grid
            )
        height, width = rows // self.block, columns // self.block
        kept = self._kept(warm * self.rates[place], grid)
        if self.by == "uniform":
            scores = _evenness(height * width, kept, device=device).expand(batch, -1)
        elif self.by == "random":
            drawn = torch.rand(batch if generator is None else 1, height * width, generator=generator)
            scores = drawn.expand(batch, -1).to(device or "cpu")
        elif received is None:
            raise ConfigError("dropping by attention needs a tower that tells the attention each patch received")
        else:
            scores = F.avg_pool2d(received.float().unflatten(1, grid).unsqueeze(1), self.block).flatten(1)
        best = scores.topk(kept, dim=1).indices
        blocks = torch.zeros(batch, height * width, dtype=torch.bool, device=scores.device)
        blocks.scatter_(1, best, True)
        whole = blocks.unflatten(1, (height, width))
        mask: Tensor = whole.repeat_interleave(self.block, 1).repeat_interleave(self.block, 2).flatten(1)
        return mask


class Pyramid(nn.Module):
    """Makes scales of the hidden states of several layers and fuses them at the finest grid.

    Args:
        width: channels V of a hidden state.
        scales: size of each scale's grid against the tower's, coarsest first, one a layer.
        fusion: concatenate (channels side by side), average, or attention (a learned weight a place and scale).
        dropping: what is dropped; None drops nothing.
    """

    def __init__(
        self,
        *,
        width: int,
        scales: Sequence[float] = (0.25, 0.5, 1.0),
        fusion: Fusion = "concatenate",
        dropping: Dropping | None = None,
    ) -> None:
        super().__init__()
        if dropping is not None and len(dropping.rates) != len(scales):
            raise ConfigError(f"{len(dropping.rates)} drop rates for {len(scales)} scales; give one each")
        self.scales, self.fusion, self.dropping = tuple(scales), fusion, dropping
        self.out_width = width * len(self.scales) if fusion == "concatenate" else width
        self.weigh = nn.Linear(width, 1) if fusion == "attention" else None

    def split(
        self,
        states: Sequence[Tensor],
        grid: tuple[int, int],
        *,
        received: Sequence[Tensor | None] | None = None,
        warm: float = 1.0,
        generator: torch.Generator | None = None,
    ) -> list[Scale]:
        """Return the scales of hidden states (B, N, V), one a layer, each with what was dropped as zeros.

        Args:
            states: patches alone, row by row, coarsest scale first.
            grid: (rows, columns) of the tower.
            received: attention each patch received in that layer (B, N).
            warm: share of the drop rates in force.
            generator: for random dropping.
        """
        found = []
        for place, (state, scale) in enumerate(zip(states, self.scales, strict=True)):
            size = (max(1, round(grid[0] * scale)), max(1, round(grid[1] * scale)))
            features = _pooled(state, grid, size)
            kept = None
            if self.dropping is not None:
                heard = received[place] if received is not None else None
                if heard is not None:
                    heard = _pooled(heard.unsqueeze(-1), grid, size).squeeze(-1)
                kept = self.dropping.mask(
                    place, grid=size, batch=len(state), received=heard, warm=warm, generator=generator,
                    device=state.device,
                )  # fmt: skip
                features = features * kept.unsqueeze(-1)
            found.append(Scale(features=features, grid=size, kept=kept))
        return found

    def forward(self, scales: Sequence[Scale]) -> Scale:
        """Return the scales fused at the grid of the last one; a place is dropped where every scale dropped it."""
        finest = scales[-1].grid
        spread = [_spread(scale.features, scale.grid, finest) for scale in scales]
        if self.fusion == "concatenate":
            fused = torch.cat(spread, dim=-1)
        elif self.weigh is None:
            fused = torch.stack(spread).mean(0)
        else:
            stacked = torch.stack(spread, dim=2)
            fused = (self.weigh(stacked).softmax(dim=2) * stacked).sum(2)
        masks = [
            _spread(s.kept.unsqueeze(-1).float(), s.grid, finest)[..., 0] > 0 for s in scales if s.kept is not None
        ]
        kept = torch.stack(masks).any(0) if len(masks) == len(scales) else None
        return Scale(features=fused, grid=finest, kept=kept)


def pixel_shuffle(features_BNV: Tensor, grid: tuple[int, int], *, by: int = 2) -> tuple[Tensor, tuple[int, int]]:
    """Put each `by` x `by` block of features side by side: (B, N / by², by² V), and the new grid.

    The order of channels within a block is that of InternVL's `ps_version` v2: rows outside, columns inside.

    Raises:
        ConfigError: the grid is not made of whole blocks.
    """
    rows, columns = grid
    if rows % by or columns % by:
        raise ConfigError(f"a grid of {rows} x {columns} cannot be shuffled by {by}", grid=grid)
    x = features_BNV.unflatten(1, (rows // by, by, columns // by, by))
    x = x.permute(0, 1, 3, 2, 4, 5)
    return x.flatten(3).flatten(1, 2), (rows // by, columns // by)


def _pooled(features_BNV: Tensor, grid: tuple[int, int], size: tuple[int, int]) -> Tensor:
    if size == grid:
        return features_BNV
    return F.adaptive_avg_pool2d(features_BNV.mT.unflatten(2, grid), size).flatten(2).mT


def _spread(features_BNV: Tensor, grid: tuple[int, int], size: tuple[int, int]) -> Tensor:
    """Repeat features over a finer grid, nearest neighbour, so that zeros stay where something was dropped."""
    if size == grid:
        return features_BNV
    return F.interpolate(features_BNV.mT.unflatten(2, grid), size=size, mode="nearest").flatten(2).mT


def _evenness(count: int, kept: int, *, device: torch.device | None) -> Tensor:
    """Return scores by which `kept` places, evenly spaced, come first."""
    scores = torch.zeros(1, count, device=device)
    scores[0, torch.linspace(0, count - 1, kept, device=device).round().long()] = 1.0
    return scores
