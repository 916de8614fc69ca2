"""The C-Abstractor as a connector, over one grid of features or over the scales of a pyramid."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from ablab.models.abstractor import CAbstractor, PyramidCAbstractor
from ablab.models.connectors.pixel_shuffle import square_side
from ablab.models.pyramid import Scale


class CAbstractorConnector(nn.Module):
    """Convolution blocks around a pool to a square of tokens.

    Args:
        vision_width: V.
        language_width: D.
        patches: F, a square grid.
        queries: Q, a square.
        layers: blocks before and after the pool.
    """

    def __init__(
        self, *, vision_width: int, language_width: int, patches: int, queries: int = 256, layers: int = 3
    ) -> None:
        super().__init__()
        self.side, self.tokens = square_side(patches, "c_abstractor"), queries
        self.abstractor = CAbstractor(
            width=vision_width, out=language_width, positions=patches, queries=queries, depth=layers
        )

    def forward(self, features: Tensor, *, kept: Tensor | None = None) -> Tensor:
        """Return (N, F, V) as (N, Q, D); `kept` (N, F) is false where a feature was dropped."""
        made: Tensor = self.abstractor(features, grid=(self.side, self.side), kept_BN=kept)
        return made


class PyramidCAbstractorConnector(nn.Module):
    """Each scale pooled to a square of tokens, fused by convolution; needs the model's `pyramid`.

    Args:
        vision_width: V of one scale.
        language_width: D.
        patches: F of the finest scale.
        scales: how many.
        queries: Q, a square.
        layers: blocks after the fusion.
    """

    def __init__(
        self,
        *,
        vision_width: int,
        language_width: int,
        patches: int,
        scales: int = 3,
        queries: int = 256,
        layers: int = 3,
    ) -> None:
        super().__init__()
        square_side(patches, "pyramid_c_abstractor")
        self.tokens = queries
        self.abstractor = PyramidCAbstractor(
            widths=[vision_width] * scales, out=language_width, queries=queries, hidden=vision_width, depth=layers
        )

    def forward(self, scales: Sequence[Scale]) -> Tensor:
        """Return the scales as (N, Q, D)."""
        made: Tensor = self.abstractor(
            [scale.features for scale in scales],
            grids=[scale.grid for scale in scales],
            kept=[scale.kept for scale in scales],
        )
        return made
