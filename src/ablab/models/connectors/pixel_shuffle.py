"""InternVL's connector: blocks of patches side by side, LayerNorm, Linear, GELU, Linear."""

from __future__ import annotations

import math

from torch import Tensor, nn
from torch.nn import functional as F

from ablab.contract.failure import ConfigError
from ablab.models.pyramid import pixel_shuffle


class PixelShuffle(nn.Module):
    """One token for each block of `by` x `by` patches.

    Args:
        vision_width: V.
        language_width: D.
        patches: F, a square grid.
        by: side of a block; 2 makes 256 tokens of 1,024 patches.

    Raises:
        ConfigError: patches that are no square of whole blocks.
    """

    def __init__(self, *, vision_width: int, language_width: int, patches: int, by: int = 2) -> None:
        super().__init__()
        self.side, self.by = square_side(patches, "pixel_shuffle"), by
        if self.side % by:
            raise ConfigError(f"connector pixel_shuffle: {self.side} x {self.side} patches do not divide by {by}")
        self.tokens = patches // by**2
        self.norm = nn.LayerNorm(vision_width * by**2)
        self.linear_1 = nn.Linear(vision_width * by**2, language_width)
        self.linear_2 = nn.Linear(language_width, language_width)

    def forward(self, features: Tensor) -> Tensor:
        """Return (N, F, V) as (N, F / by², D)."""
        shuffled, _ = pixel_shuffle(features, (self.side, self.side), by=self.by)
        made: Tensor = self.linear_2(F.gelu(self.linear_1(self.norm(shuffled))))
        return made


def square_side(patches: int, name: str) -> int:
    """Return the side of a square of patches.

    Raises:
        ConfigError: they are no square, for example because a CLS token was kept among them.
    """
    side = math.isqrt(patches)
    if side * side != patches:
        raise ConfigError(
            f"connector {name}: {patches} features are no square of patches; keep no CLS token (cls: drop)"
        )
    return side
