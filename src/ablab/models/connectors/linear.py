"""One linear layer (LLaVA, arXiv 2304.08485)."""

from __future__ import annotations

from torch import Tensor, nn


class LinearConnector(nn.Module):
    """Features times a matrix."""

    def __init__(self, *, vision_width: int, language_width: int, patches: int) -> None:
        super().__init__()
        self.tokens = patches
        self.linear = nn.Linear(vision_width, language_width)

    def forward(self, features: Tensor) -> Tensor:
        """Return (N, F, V) as (N, F, D)."""
        made: Tensor = self.linear(features)
        return made
