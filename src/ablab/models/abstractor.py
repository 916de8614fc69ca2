"""C-Abstractor and Pyramid C-Abstractor: image features to a fixed number of tokens, with local context kept.

Cha et al. 2024, "Honeybee: Locality-enhanced Projector for Multimodal LLM". Convolution blocks before and after an
adaptive average pool; the number of tokens is a square. Features that were dropped before arrive as zeros with a mask,
and the pool averages what is left.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor, cat, nn, randn
from torch.nn import functional as F

from ablab.contract.failure import ConfigError


class CAbstractor(nn.Module):
    """Learned position, three bottleneck blocks, pool to sqrt(M) x sqrt(M), three blocks, Linear-SiLU-Linear.

    Args:
        width: channels of the features.
        out: width of the language model.
        positions: features an image has (rows x columns), for the learned position.
        queries: tokens M an image becomes, a square.
        hidden: channels inside the blocks; None takes `width`.
        depth: blocks before and after the pool.

    Raises:
        ConfigError: M is no square.
    """

    def __init__(
        self, *, width: int, out: int, positions: int, queries: int = 256, hidden: int | None = None, depth: int = 3
    ) -> None:
        super().__init__()
        self.side = side_of(queries)
        hidden = hidden or width
        self.position = nn.Parameter(0.02 * randn(positions, width))
        self.before = _blocks(width, hidden, depth)
        self.after = _blocks(hidden, hidden, depth)
        self.readout = nn.Sequential(nn.Linear(hidden, out), nn.SiLU(), nn.Linear(out, out))

    def forward(self, features_BNV: Tensor, *, grid: tuple[int, int], kept_BN: Tensor | None = None) -> Tensor:
        """Return tokens (B, M, out).

        Args:
            features_BNV: row by row; what was dropped is zero.
            grid: (rows, columns), rows x columns = N.
            kept_BN: False where a feature was dropped; None keeps all.
        """
        x = features_BNV + self.position.to(features_BNV.dtype)
        kept = None
        if kept_BN is not None:
            x = x * kept_BN.unsqueeze(-1)
            kept = kept_BN.to(x.dtype).unflatten(1, grid).unsqueeze(1)
        x = self.before(x.mT.unflatten(2, grid))
        return self.read(masked_pool(x, self.side, kept_B1HW=kept))

    def read(self, x_BCHW: Tensor) -> Tensor:
        """Return tokens (B, M, out) of pooled features."""
        tokens: Tensor = self.readout(self.after(x_BCHW).flatten(2).mT)
        return tokens


class PyramidCAbstractor(nn.Module):
    """Each scale is pooled to sqrt(M) x sqrt(M), a convolution bottleneck fuses them, then as CAbstractor goes on.

    Args:
        widths: channels of each scale.
        out: width of the language model.
        queries: tokens M an image becomes, a square.
        hidden: channels inside the blocks.
        depth: blocks after the fusion.
    """

    def __init__(self, *, widths: Sequence[int], out: int, queries: int = 256, hidden: int, depth: int = 3) -> None:
        super().__init__()
        self.side = side_of(queries)
        total = sum(widths)
        self.position = nn.Parameter(0.02 * randn(queries, total))
        self.fusion = nn.Sequential(
            nn.Conv2d(total, hidden, 1), ChannelNorm(hidden), nn.SiLU(), Bottleneck(hidden, hidden)
        )
        self.after = _blocks(hidden, hidden, depth)
        self.readout = nn.Sequential(nn.Linear(hidden, out), nn.SiLU(), nn.Linear(out, out))

    def forward(
        self,
        scales: Sequence[Tensor],
        *,
        grids: Sequence[tuple[int, int]],
        kept: Sequence[Tensor | None] | None = None,
    ) -> Tensor:
        """Return tokens (B, M, out).

        Args:
            scales: features of each scale, (B, N_s, V_s), row by row.
            grids: (rows, columns) of each.
            kept: False where a feature of that scale was dropped.
        """
        pooled = []
        for place, (features, grid) in enumerate(zip(scales, grids, strict=True)):
            mask = kept[place] if kept is not None else None
            if mask is not None:
                features = features * mask.unsqueeze(-1)
                mask = mask.to(features.dtype).unflatten(1, grid).unsqueeze(1)
            pooled.append(masked_pool(features.mT.unflatten(2, grid), self.side, kept_B1HW=mask))
        x = cat(pooled, dim=1)
        x = x + self.position.to(x.dtype).mT.unflatten(1, (self.side, self.side))
        tokens: Tensor = self.readout(self.after(self.fusion(x)).flatten(2).mT)
        return tokens


class Bottleneck(nn.Module):
    """Residual block: 1x1, 3x3 depthwise, squeeze-excitation, 1x1; norms over channels, SiLU between.

    Args:
        width: channels in; the shortcut is a 1x1 convolution where they differ from `out`.
        out: channels out, and inside.
        squeeze: how much narrower the squeeze is.
    """

    def __init__(self, width: int, out: int, *, squeeze: int = 4) -> None:
        super().__init__()
        self.narrow = nn.Sequential(nn.Conv2d(width, out, 1, bias=False), ChannelNorm(out), nn.SiLU())
        self.local = nn.Sequential(
            nn.Conv2d(out, out, 3, padding=1, groups=out, bias=False), ChannelNorm(out), nn.SiLU()
        )
        self.squeeze = nn.Conv2d(out, max(1, out // squeeze), 1)
        self.excite = nn.Conv2d(max(1, out // squeeze), out, 1)
        self.widen = nn.Sequential(nn.Conv2d(out, out, 1, bias=False), ChannelNorm(out))
        self.shortcut = nn.Identity() if width == out else nn.Conv2d(width, out, 1, bias=False)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Return features of the same grid."""
        y = self.local(self.narrow(x_BCHW))
        gate = self.excite(F.silu(self.squeeze(y.mean((2, 3), keepdim=True)))).sigmoid()
        return F.silu(self.shortcut(x_BCHW) + self.widen(y * gate))


class ChannelNorm(nn.LayerNorm):
    """LayerNorm over the channels of (B, C, H, W): each place by itself, so that a batch never matters."""

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Return normalised features."""
        return super().forward(x_BCHW.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def masked_pool(x_BCHW: Tensor, side: int, *, kept_B1HW: Tensor | None = None) -> Tensor:
    """Average pool to side x side over what was kept; a cell with nothing kept is zero.

    Args:
        x_BCHW: features; values at dropped places do not matter.
        side: rows and columns of the result.
        kept_B1HW: 1 where kept, 0 where dropped; None keeps all.
    """
    if kept_B1HW is None:
        return F.adaptive_avg_pool2d(x_BCHW, side)
    share = F.adaptive_avg_pool2d(kept_B1HW, side)
    pooled = F.adaptive_avg_pool2d(x_BCHW * kept_B1HW, side)
    return pooled / share.clamp_min(1e-6) * (share > 0)


def side_of(queries: int) -> int:
    """Return the side of a square of tokens. Raises ConfigError for another number."""
    side = math.isqrt(queries)
    if side * side != queries:
        near = sorted({side * side, (side + 1) ** 2})
        raise ConfigError(
            f"a C-Abstractor makes a square of tokens, and {queries} is none; near are {near[0]} and {near[-1]}",
            queries=queries,
        )
    return side


def _blocks(width: int, hidden: int, depth: int) -> nn.Sequential:
    return nn.Sequential(*(Bottleneck(width if place == 0 else hidden, hidden) for place in range(depth)))
