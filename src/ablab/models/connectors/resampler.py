"""A fixed number of learned queries that attend to the features (Flamingo's perceiver resampler, arXiv 2204.14198)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ablab.contract.failure import ConfigError


class Resampler(nn.Module):
    """Layers of cross-attention from queries to (features, queries) and a feed-forward, then Linear to D.

    Args:
        vision_width: V.
        language_width: D.
        patches: F, for the learned positions of the features.
        queries: Q, tokens an image becomes.
        layers: of attention and feed-forward.
        heads: attention heads; must divide V.

    Raises:
        ConfigError: heads do not divide the width.
    """

    def __init__(
        self,
        *,
        vision_width: int,
        language_width: int,
        patches: int,
        queries: int = 64,
        layers: int = 3,
        heads: int = 8,
    ) -> None:
        super().__init__()
        if vision_width % heads:
            raise ConfigError(f"connector resampler: {heads} heads do not divide the tower's width {vision_width}")
        self.tokens = queries
        self.queries = nn.Parameter(torch.randn(queries, vision_width) * vision_width**-0.5)
        self.positions = nn.Parameter(torch.randn(patches, vision_width) * 0.02)
        self.layers = nn.ModuleList([_Layer(vision_width, heads) for _ in range(layers)])
        self.norm = nn.LayerNorm(vision_width)
        self.linear = nn.Linear(vision_width, language_width)

    def forward(self, features: Tensor) -> Tensor:
        """Return (N, F, V) as (N, Q, D)."""
        features = features + self.positions
        states = self.queries.expand(features.size(0), -1, -1)
        for layer in self.layers:
            states = layer(states, features)
        made: Tensor = self.linear(self.norm(states))
        return made


class _Layer(nn.Module):
    """Attention from queries to features and queries, then a feed-forward of four times the width."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.query_norm, self.feature_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = nn.MultiheadAttention(width, heads, batch_first=True, bias=False)
        self.feedforward = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )

    def forward(self, states: Tensor, features: Tensor) -> Tensor:
        """Return queries (N, Q, V) one layer further, features being (N, F, V)."""
        queries = self.query_norm(states)
        seen = torch.cat([self.feature_norm(features), queries], dim=1)
        states = states + self.attention(queries, seen, seen, need_weights=False)[0]
        made: Tensor = states + self.feedforward(states)
        return made
