"""Recurrent fusion of tapped layers: a few learned vectors read the text and the image, depth by depth.

One cell runs over the tapped depths of both towers (ReT, arXiv 2503.01980). Its state is `queries` vectors; at every
depth they attend to each other, to the text's and to the image's token states, and element-wise gates decide how much
of each enters. A missing text or image closes its gate, so whatever stands in its place has no effect. The last state,
projected and normalised, is the representation of a query or passage for MaxSim.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ablab.contract.failure import ConfigError


@dataclass(frozen=True, kw_only=True)
class FusionShape:
    """Sizes of the fusion.

    Args:
        text, vision: widths of the tapped layers, in pairs by depth.
        width: of the state (H).
        heads: of every attention; divides the width.
        queries: vectors of the state.
        output: width of the representation.
        dropout: in attention and the feed-forward layer.
        pooled: mean of the vectors instead of all of them.
    """

    text: tuple[int, ...]
    vision: tuple[int, ...]
    width: int = 1024
    heads: int = 16
    queries: int = 32
    output: int = 128
    dropout: float = 0.05
    pooled: bool = False


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What towers say about some items.

    Args:
        states: token states by depth, (B, T, C) each; None where no item has the modality.
        valid: bool (B, T), which tokens count; None counts all.
        present: (B,), 1 where the item has the modality, else 0.
    """

    states: Sequence[Tensor] | None
    valid: Tensor | None
    present: Tensor


class Attention(nn.Module):
    """Multi-head attention from the state to itself or to tokens."""

    def __init__(self, width: int, heads: int, *, dropout: float, bias: bool) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.query = nn.Linear(width, width, bias=bias)
        self.key = nn.Linear(width, width, bias=bias)
        self.value = nn.Linear(width, width, bias=bias)
        self.out = nn.Linear(width, width, bias=bias)

    def forward(self, state: Tensor, tokens: Tensor, valid: Tensor | None = None, *, rows: int = 1) -> Tensor:
        """Return (B, Q, H) for a state (B, Q, H) that looks at tokens (B, T, H) of which `valid` (B, T) count.

        A state (1, Q, H) is that of all rows, and is projected once. Where it looks at itself and nothing is dropped,
        what comes out is that of all rows too; otherwise every one of `rows` draws its own dropout.
        """
        mask = None if valid is None else valid[:, None, None, :]
        query, key, value = (
            self._split(self.query(state)),
            self._split(self.key(tokens)),
            self._split(self.value(tokens)),
        )
        dropout = self.dropout if self.training else 0.0
        many = max(len(tokens), rows if dropout else 1)
        query, key, value = (part.expand(many, -1, -1, -1) for part in (query, key, value))
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=mask, dropout_p=dropout)
        out: Tensor = self.out(mixed.transpose(1, 2).flatten(2))
        return out

    def _split(self, x: Tensor) -> Tensor:
        return x.view(*x.shape[:2], self.heads, -1).transpose(1, 2)


class Cell(nn.Module):
    """One step of the recurrence.

    q = state + ids;  n = LN(q);  r = q + SelfAttn(n);  t = CrossAttn(n, LN(text));  v = CrossAttn(n, LN(image))
    i_t = has_text sigmoid(W t + b);  i_v = has_image sigmoid(W v + b);  f = sigmoid(has_text W t + has_image W v + b)
    state = r f + t i_t + v i_v;  state += MLP(LN(state))
    """

    def __init__(self, shape: FusionShape) -> None:
        super().__init__()
        width, heads, dropout = shape.width, shape.heads, shape.dropout
        self.state_norm, self.text_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.image_norm, self.mlp_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.own = Attention(width, heads, dropout=dropout, bias=True)
        self.text = Attention(width, heads, dropout=dropout, bias=False)
        self.image = Attention(width, heads, dropout=dropout, bias=False)
        self.text_gate, self.image_gate = nn.Linear(width, width), nn.Linear(width, width)
        self.text_forget, self.image_forget = nn.Linear(width, width), nn.Linear(width, width, bias=False)
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(4 * width, width),
            nn.Dropout(dropout),
        )

    def forward(
        self, state: Tensor, ids: Tensor, text: Tensor | None, image: Tensor | None, seen: tuple[Seen, Seen]
    ) -> Tensor:
        """Return the next state (B, Q, H) from the tokens (B, T, H) of one depth; None: no item has them.

        The first state, which is that of all items, may be given once, as (1, Q, H).
        """
        asked = state + ids
        normed = self.state_norm(asked)
        kept = asked + self.own(normed, normed, rows=len(seen[0].present))
        forget: Tensor = self.text_forget.bias
        entering: list[tuple[Tensor, Tensor]] = []
        if text is not None:
            # A missing one is nothing from here on: neither its gate nor what it makes forget lets it through.
            told = (
                self.text(normed, self.text_norm(text), seen[0].valid) * seen[0].present.to(kept.dtype)[:, None, None]
            )
            entering.append((told, torch.sigmoid(self.text_gate(told))))
            forget = self.text_forget(told)
        if image is not None:
            shown = self.image(normed, self.image_norm(image), seen[1].valid)
            shown = shown * seen[1].present.to(kept.dtype)[:, None, None]
            entering.append((shown, torch.sigmoid(self.image_gate(shown))))
            forget = forget + self.image_forget(shown)
        state = kept * torch.sigmoid(forget)
        for what, gate in entering:
            state = torch.addcmul(state, what, gate)
        out: Tensor = state + self.mlp(self.mlp_norm(state))
        return out


class Fusion(nn.Module):
    """The recurrence over the depths, and the projection to what is compared.

    Raises:
        ConfigError: heads that do not divide the width, or taps that do not come in pairs.
    """

    ids: Tensor

    def __init__(self, shape: FusionShape) -> None:
        super().__init__()
        if shape.width % shape.heads:
            raise ConfigError(f"model.width {shape.width} is not divisible by model.heads {shape.heads}")
        if len(shape.text) != len(shape.vision):
            raise ConfigError(f"taps come in pairs, found {len(shape.text)} of text and {len(shape.vision)} of vision")
        self.shape = shape
        self.text_maps = nn.ModuleList([nn.Linear(width, shape.width) for width in shape.text])
        self.image_maps = nn.ModuleList([nn.Linear(width, shape.width) for width in shape.vision])
        self.state = nn.Parameter(torch.randn(shape.queries, shape.width) * 0.2)
        self.cell = Cell(shape)
        self.head = nn.Linear(shape.width, shape.output, bias=False)
        self.register_buffer("ids", sinusoids(shape.queries, shape.width), persistent=False)

    def forward(self, text: Seen, image: Seen) -> Tensor:
        """Return normalised vectors, fp32 (B, queries, output), or (B, 1, output) where they are pooled."""
        rows = len(text.present)
        state = self.state[None]
        seen = (_readable(text), _readable(image))
        for depth, (text_map, image_map) in enumerate(zip(self.text_maps, self.image_maps, strict=True)):
            words = None if text.states is None else text_map(text.states[depth])
            patches = None if image.states is None else image_map(image.states[depth])
            state = self.cell(state, self.ids, words, patches, seen)
        vectors = self.head(state).float().expand(rows, -1, -1)
        if self.shape.pooled:
            vectors = vectors.mean(dim=1, keepdim=True)
        return F.normalize(vectors, dim=-1)


def _readable(seen: Seen) -> Seen:
    """Return it with at least one token to look at for every item: attention to nothing is not a number.

    The gate of an item without the modality is closed, so what it looks at does not matter.
    """
    if seen.valid is None:
        return seen
    first = torch.zeros_like(seen.valid)
    first[:, 0] = True
    return Seen(states=seen.states, valid=seen.valid | (first & ~seen.valid.any(1, keepdim=True)), present=seen.present)


def sinusoids(positions: int, width: int) -> Tensor:
    """Return the fixed sinusoidal embeddings of Vaswani et al. 2017, (positions, width)."""
    angles = torch.arange(positions)[:, None] * torch.exp(torch.arange(0, width, 2) * (-math.log(10_000.0) / width))
    found = torch.zeros(positions, width)
    found[:, 0::2], found[:, 1::2] = angles.sin(), angles.cos()[:, : width // 2]
    return found
