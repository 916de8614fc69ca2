"""PyramidDrop inside the language model: fewer image tokens the deeper the layer, in training and generation alike.

Xing et al. 2024, "PyramidDrop: Accelerating Your Large Vision-Language Models via Pyramid Visual Redundancy Reduction":
before some layers, only a share of the image tokens that are left goes on, those that the last token of the instruction
looks at most. Here the attention of the layer before ranks them. Text is never dropped. The rest of the model sees
nothing of it: dropped places come out as zeros, and each layer's cache holds what that layer saw.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ablab.contract.failure import ConfigError
from ablab.models.attention_hooks import attach
from ablab.models.layers import layers_of


class LanguageDrop:
    """Drops image tokens between the layers of one decoder. `attach_language_drop` puts it there.

    Args:
        layers: of the decoder.
        heard: attention of the last instruction token by layer, filled by the notes.
        before: layers (0-based) before which tokens are dropped.
        keep: share of the image tokens left that goes on each time.
    """

    def __init__(self, layers: nn.ModuleList, heard: dict[int, Tensor], *, before: Sequence[int], keep: float) -> None:
        self._layers, self._heard = layers, heard
        self.before, self.keep = tuple(sorted(before)), keep
        self._places: Tensor | None = None
        self._last: Tensor | None = None
        self._whole = 0
        self._kept: list[tuple[Tensor, Tensor] | None] = [None] * len(layers)

    def mark(self, places: Tensor | None, *, last: Tensor | None = None) -> None:
        """Say where the images of the next prompt are; None drops nothing.

        Args:
            places: bool (B, T), true at image tokens.
            last: place of the last token of the instruction (B,); None is the last of all.
        """
        self._places, self._last = places, last
        self._kept = [None] * len(self._layers)
        self._heard.clear()

    def look(self, query: Tensor, key: Tensor, mask: Tensor | None, scaling: float, *, layer: int) -> Tensor:
        """Return how much the last instruction token looks at each token (B, M), mean over the heads."""
        if self._places is None or query.size(2) == 1:
            return query.new_zeros(0)
        batch, heads, count, _ = query.shape
        kept = self._kept[layer]
        last = self._place_of_last(batch, count, query.device, kept)
        asked = query[torch.arange(batch, device=query.device), :, last].unsqueeze(2)
        seen = key.repeat_interleave(heads // key.size(1), dim=1)
        with torch.no_grad():
            logits = (asked.float() @ seen.float().mT).squeeze(2) * scaling
            future = torch.arange(seen.size(2), device=query.device) > last[:, None, None]
            logits = logits.masked_fill(future, float("-inf"))
            if mask is not None:
                row = mask.expand(batch, *mask.shape[1:])[torch.arange(batch, device=query.device), :, last]
                logits = logits.masked_fill(~row, float("-inf")) if row.dtype == torch.bool else logits + row.float()
            return logits.softmax(-1).mean(1)

    def enter(self, layer: int, hidden: Tensor, named: dict[str, Any]) -> tuple[Tensor, dict[str, Any]]:
        """Return what a layer is given: hidden states and masks of the tokens that are left."""
        if self._places is None:
            return hidden, named
        if hidden.size(1) == 1:
            return hidden, self._narrowed(named, self._kept[layer], decoding=True)
        if layer == 0:
            self._whole = hidden.size(1)
            self._kept = [None] * len(self._layers)
        if layer in self.before:
            chosen = self._choose(layer, hidden)
            if chosen is not None:
                inside, index = chosen
                hidden = hidden.gather(1, inside.unsqueeze(-1).expand(-1, -1, hidden.size(2)))
                for later in range(layer, len(self._layers)):
                    self._kept[later] = index
        return hidden, self._narrowed(named, self._kept[layer], decoding=False)

    def leave(self, hidden: Tensor) -> Tensor:
        """Return the last layer's output at the places of the whole prompt, zeros where something was dropped."""
        kept = self._kept[-1]
        if kept is None or hidden.size(1) == 1:
            return hidden
        index, real = kept
        whole = hidden.new_zeros(hidden.size(0), self._whole, hidden.size(2))
        return whole.scatter_add(1, index.unsqueeze(-1).expand_as(hidden), hidden * real.unsqueeze(-1))

    def _choose(self, layer: int, hidden: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]] | None:
        """Return indices into `hidden` and into the whole prompt of what goes on; fillers are unreal."""
        assert self._places is not None
        batch, count = hidden.shape[:2]
        places = self._places.to(hidden.device).repeat_interleave(batch // self._places.size(0), dim=0)
        before = self._kept[layer - 1] if layer else None
        whole = torch.arange(count, device=hidden.device).expand(batch, -1) if before is None else before[0]
        real = torch.ones_like(whole, dtype=torch.bool) if before is None else before[1]
        images = places.gather(1, whole) & real
        scores = self._heard[layer - 1].masked_fill(~images, -1.0)
        left = images.sum(1)
        wanted = (left * self.keep).ceil().long()
        if bool((wanted == left).all()):
            return None
        rank = scores.argsort(dim=1, descending=True, stable=True).argsort(dim=1)
        stays = real & (~images | (rank < wanted.unsqueeze(1)))
        most = int(stays.sum(1).max())
        # Those that stay come first, in their order; a row with fewer is filled up with what is masked then.
        inside = (~stays).long().argsort(dim=1, stable=True)[:, :most]
        return inside, (whole.gather(1, inside), stays.gather(1, inside))

    def _narrowed(self, named: dict[str, Any], kept: tuple[Tensor, Tensor] | None, *, decoding: bool) -> dict[str, Any]:
        """Return a layer's named inputs for the tokens that are left."""
        if kept is None:
            return named
        index, real = kept
        named = dict(named)
        if decoding:
            named["attention_mask"] = _columns(named.get("attention_mask"), index, real, self._whole)
            return named
        named["attention_mask"] = _square(named.get("attention_mask"), index, real)
        if named.get("position_ids") is not None:
            named["position_ids"] = named["position_ids"].expand(len(index), -1).gather(1, index)
        turns = named.get("position_embeddings")
        if turns is not None:
            named["position_embeddings"] = tuple(
                turn.expand(len(index), -1, -1).gather(1, index.unsqueeze(-1).expand(-1, -1, turn.size(-1)))
                for turn in turns
            )
        return named

    def _place_of_last(
        self, batch: int, count: int, device: torch.device, kept: tuple[Tensor, Tensor] | None
    ) -> Tensor:
        if self._last is None and kept is None:
            return torch.full((batch,), count - 1, device=device)
        last = torch.full((batch,), self._whole - 1, device=device)
        if self._last is not None:
            last = self._last.to(device).repeat_interleave(batch // len(self._last))
        return last if kept is None else ((kept[0] == last.unsqueeze(1)) & kept[1]).int().argmax(1)


def attach_language_drop(
    decoder: Any, *, before: Sequence[int] = (8, 16, 24), keep: float = 0.5, part: str = "llm"
) -> LanguageDrop:
    """Drop image tokens before some layers of a decoder; tell it of each prompt by `mark`.

    Args:
        decoder: causal language model of transformers; changed in place.
        before: layers, 0-based.
        keep: share of the image tokens that goes on each time.
        part: what the decoder is called in messages.

    Raises:
        ConfigError: a layer that does not exist or has none before it, or a share that is none.
    """
    _, layers = layers_of(decoder, part=part)
    wrong = [layer for layer in before if not 1 <= layer < len(layers)]
    if wrong:
        raise ConfigError(
            f"{part}: tokens cannot be dropped before layer {wrong[0]}; choose among 1 to {len(layers) - 1}"
        )
    if not 0 < keep <= 1:
        raise ConfigError(f"{part}: the share of image tokens that goes on lies in (0, 1], found {keep}")
    hooks = attach(decoder, part=part)
    drop = LanguageDrop(layers, hooks.heard, before=before, keep=keep)
    for layer in drop.before:
        hooks.notes[layer - 1] = _noted(drop, layer - 1)
    for index, module in enumerate(layers):
        module.register_forward_pre_hook(_entered(drop, index), with_kwargs=True)
    layers[-1].register_forward_hook(_left(drop))
    return drop


def _noted(drop: LanguageDrop, layer: int) -> Any:
    def note(query: Tensor, key: Tensor, mask: Tensor | None, scaling: float) -> Tensor:
        return drop.look(query, key, mask, scaling, layer=layer)

    return note


def _entered(drop: LanguageDrop, index: int) -> Any:
    def hook(
        _: nn.Module, positional: tuple[Any, ...], named: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        if positional:
            hidden, named = drop.enter(index, positional[0], named)
            return (hidden, *positional[1:]), named
        hidden, named = drop.enter(index, named["hidden_states"], named)
        return (), named | {"hidden_states": hidden}

    return hook


def _left(drop: LanguageDrop) -> Any:
    def hook(_: nn.Module, __: tuple[Any, ...], output: Any) -> Any:
        if isinstance(output, tuple):
            return (drop.leave(output[0]), *output[1:])
        return drop.leave(output)

    return hook


def _square(mask: Tensor | None, index: Tensor, real: Tensor) -> Tensor | None:
    """Return the mask of the tokens that are left, in the form it came in; causal where there was none."""
    batch, count = index.shape
    if mask is None:
        if bool(real.all()):
            return None
        mask = torch.ones(
            1, 1, int(index.max()) + 1, int(index.max()) + 1, dtype=torch.bool, device=index.device
        ).tril()
    rows = mask.expand(batch, -1, -1, -1).gather(2, index[:, None, :, None].expand(-1, mask.size(1), -1, mask.size(3)))
    found = rows.gather(3, index[:, None, None, :].expand(-1, mask.size(1), count, -1))
    # An unreal token is seen by itself alone, so that no row is empty.
    itself = torch.eye(count, dtype=torch.bool, device=index.device)
    seen = (real[:, None, None, :] & real[:, None, :, None]) | itself
    if found.dtype == torch.bool:
        return (found | (itself & ~real[:, None, :, None])) & seen
    return found.masked_fill(~seen, torch.finfo(found.dtype).min)


def _columns(mask: Tensor | None, index: Tensor, real: Tensor, whole: int) -> Tensor | None:
    """Return the mask of one new token over what a layer's cache holds: the prompt's tokens left, and all since."""
    if mask is None:
        if bool(real.all()):
            return None
        raise ConfigError("rows that keep different numbers of image tokens need an attention mask to generate with")
    batch = len(index)
    mask = mask.expand(batch, -1, -1, -1)
    old = mask[..., :whole].gather(3, index[:, None, None, :].expand(-1, mask.size(1), mask.size(2), -1))
    if old.dtype == torch.bool:
        old = old & real[:, None, None, :]
    else:
        old = old.masked_fill(~real[:, None, None, :], torch.finfo(old.dtype).min)
    return torch.cat([old, mask[..., whole:]], dim=-1)
