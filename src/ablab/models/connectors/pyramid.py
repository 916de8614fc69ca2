"""Scales between the tower and a connector: what several layers saw, at several resolutions, less what is dropped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ablab.models.connectors.c_abstractor import CAbstractorConnector, PyramidCAbstractorConnector
from ablab.models.connectors.pixel_shuffle import square_side
from ablab.models.pyramid import Dropping, Pyramid


class PyramidConnector(nn.Module):
    """A pyramid of the features of several layers, and the connector behind it.

    Args:
        vision_width: of the features of one layer, V.
        language_width: D.
        patches: F, a square grid.
        name: the connector behind; pyramid_c_abstractor takes the scales themselves, others what they are fused to.
        options: of that connector.
        scales: size of each scale's grid, one a layer, coarsest first.
        fusion: concatenate, average or attention.
        dropping: what is dropped; None drops nothing.
        folder: where a file.py of one's own starts.
    """

    def __init__(
        self,
        *,
        vision_width: int,
        language_width: int,
        patches: int,
        name: str,
        options: Mapping[str, Any],
        scales: Sequence[float],
        fusion: Any,
        dropping: Dropping | None,
        folder: Any = None,
    ) -> None:
        from ablab.models.connectors import build_connector

        super().__init__()
        self.side, self.width = square_side(patches, "pyramid"), vision_width
        self.pyramid = Pyramid(width=vision_width, scales=scales, fusion=fusion, dropping=dropping)
        fused = name != "pyramid_c_abstractor"
        more = {} if fused else {"scales": len(self.pyramid.scales)}
        self.inner = build_connector(
            name,
            vision_width=self.pyramid.out_width if fused else vision_width,
            language_width=language_width,
            patches=patches,
            folder=folder,
            **options,
            **more,
        )
        self.tokens = getattr(self.inner, "tokens", patches)
        #: Share of the drop rates in force; training sets it step by step.
        self.warm = 1.0

    @property
    def listens(self) -> bool:
        """Whether it needs to know the attention that patches received."""
        return self.pyramid.dropping is not None and self.pyramid.dropping.by == "attention"

    def forward(self, features: Tensor, *, received: Sequence[Tensor] | None = None) -> Tensor:
        """Return features of all layers (N, F, layers x V) as (N, Q, D); `received` (N, F) of each layer."""
        states = features.split(self.width, dim=-1)
        warm = self.warm if self.training else 1.0
        # Training draws as dropout does, from the generators that the loop seeds for each micro-batch; an answer may
        # hang neither on what was drawn before nor on the images beside it.
        drawn = None if self.training else torch.Generator().manual_seed(0)
        scales = self.pyramid.split(states, (self.side, self.side), received=received, warm=warm, generator=drawn)
        if isinstance(self.inner, PyramidCAbstractorConnector):
            made: Tensor = self.inner(scales)
            return made
        fused = self.pyramid(scales)
        if isinstance(self.inner, CAbstractorConnector):
            made = self.inner(fused.features, kept=fused.kept)
        else:
            made = self.inner(fused.features)
        return made
