"""A vision tower of transformers (CLIP, SigLIP, SigLIP2, DINOv2, ViT, ...) read at one layer or several.

Layers above the last one that is read are never run and never train; they are kept, so that the whole tower can be
saved. A tower whose parameters are all frozen runs without graph. What precedes the patches (CLS, registers) is
counted on the tower itself, never assumed: a tower without CLS loses no patch.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ablab.contract.failure import ConfigError, DataError
from ablab.models.attention_hooks import attach
from ablab.models.layers import layers_of
from ablab.models.source import set_source, sources

Select = Literal["auto", "drop", "keep"]

#: What stands behind the layers in one architecture or another; the features are read before it.
_BEHIND = ("post_layernorm", "layernorm", "norm", "head", "pooler")


class Tower(nn.Module):
    """Patch features of images.

    Args:
        model: the bare vision model; the tower takes it over.
        layer: hidden state that is read as in LLaVA: -1 is the last layer's output, -2 the one before it, i > 0 the
            output of the i-th layer. Several are concatenated along the width.
        cls: what becomes of tokens that are no patch: drop them (auto too), or keep them in front.
        listen: whether to note the attention each patch received in the layers that are read (`received`).
        label: what the tower is called in messages.

    Raises:
        ConfigError: a layer the tower does not have, or images that are no square of patches.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        layer: int | Sequence[int] = -2,
        cls: Select = "auto",
        listen: bool = False,
        label: str = "tower",
    ) -> None:
        super().__init__()
        self.model: Any = model
        config: Any = model.config
        path, layers = layers_of(model, part=label)
        self.depth = len(layers)
        self.layers_read = tuple(_run_to(index, self.depth, label) for index in _listed(layer))
        self._path = path
        self.image_size, self.patch_size = _side(config, "image_size"), _side(config, "patch_size")
        self.naflex = config.model_type.startswith("siglip2")
        if self.naflex:
            self.image_size = round(config.num_patches**0.5) * self.patch_size
        self.grid = self.image_size // self.patch_size
        self.width = int(config.hidden_size) * len(self.layers_read)
        self.prefix = self._count_prefix(label)
        self.kept = self.prefix if cls == "keep" else 0
        source = next((found.text for prefix, found in sources(model) if not prefix), None)
        self.unused = nn.ModuleDict()
        #: Attention that each patch received in each layer that is read, (N, F), of the last images.
        self.received: list[Tensor] | None = None
        self._hooks = attach(model, part=label) if listen else None
        if self._hooks is not None:
            self._hooks.notes |= {index - 1: attention_received for index in self.layers_read}
        self._set_aside(layers)
        if source is not None:
            set_source(self, source)

    @property
    def tokens(self) -> int:
        """Features of an image."""
        return self.grid**2 + self.kept

    @property
    def trains(self) -> bool:
        """Whether any of its parameters does."""
        return any(parameter.requires_grad for parameter in self.model.parameters())

    def train(self, mode: bool = True) -> Tower:
        """Set training mode; a frozen tower stays as in evaluation (no drop path, no dropout)."""
        super().train(mode and self.trains)
        return self

    def forward(self, pixels: Tensor) -> Tensor:
        """Return the features (N, tokens, width) of normalised pixels (N, 3, S, S), patches row by row.

        Raises:
            DataError: images of another size.
        """
        if pixels.shape[1:] != (3, self.image_size, self.image_size):
            raise DataError(
                f"the tower takes images of (3, {self.image_size}, {self.image_size}), found {tuple(pixels.shape[1:])}"
            )
        with nullcontext() if self.trains else torch.no_grad():
            states = self._states(pixels.to(next(self.model.parameters()).dtype))
            first = self.prefix - self.kept
            if self._hooks is not None:
                self.received = [self._hooks.heard.pop(index - 1)[:, self.prefix :] for index in self.layers_read]
            return torch.cat([state[:, first:] for state in states], dim=-1)

    def _states(self, pixels: Tensor) -> list[Tensor]:
        """Run the layers and return the hidden states that are read."""
        layers, caught = self.model.get_submodule(self._path), {}

        def catch(index: int) -> Any:
            def hook(_: nn.Module, __: Any, output: Any) -> None:
                caught[index] = output[0] if isinstance(output, tuple) else output

            return hook

        handles = [layers[index - 1].register_forward_hook(catch(index)) for index in set(self.layers_read)]
        try:
            self.model(**self._inputs(pixels))
        finally:
            for handle in handles:
                handle.remove()
        return [caught[index] for index in self.layers_read]

    def _inputs(self, pixels: Tensor) -> dict[str, Tensor]:
        if not self.naflex:
            return {"pixel_values": pixels}
        images, side = pixels.size(0), self.grid
        patches = pixels.unflatten(2, (side, self.patch_size)).unflatten(4, (side, self.patch_size))
        # (N, 3, rows, p, columns, p) to (N, rows x columns, p x p x 3), as the architecture's processor lays them out
        flat = patches.permute(0, 2, 4, 3, 5, 1).reshape(images, side * side, -1)
        return {
            "pixel_values": flat,
            "pixel_attention_mask": torch.ones(images, side * side, dtype=torch.int32, device=pixels.device),
            "spatial_shapes": torch.full((images, 2), side, device=pixels.device),
        }

    def _count_prefix(self, label: str) -> int:
        """Return how many tokens the embeddings put before the patches."""
        weight = next(self.model.parameters())
        pixels = torch.zeros(1, 3, self.image_size, self.image_size, dtype=weight.dtype, device=weight.device)
        given = self._inputs(pixels)
        given.pop("pixel_attention_mask", None)
        with torch.no_grad():
            found = self.model.embeddings(*given.values())
        found = found[0] if isinstance(found, tuple) else found
        prefix = int(found.size(1)) - self.grid**2
        if prefix < 0:
            raise ConfigError(
                f"{label}: {found.size(1)} tokens for images of {self.grid} x {self.grid} patches; only towers with "
                "one token a patch can be read"
            )
        return prefix

    def _set_aside(self, layers: nn.ModuleList) -> None:
        """Move what is never run out of the model."""
        last = max(self.layers_read)
        for index in range(len(layers) - 1, last - 1, -1):
            self.unused[f"layer-{index}"] = layers[index]
            del layers[index]
        for name in _BEHIND:
            module = getattr(self.model, name, None)
            if isinstance(module, nn.Module):
                self.unused[name] = module
                setattr(self.model, name, nn.Identity())
                if name == "head" and hasattr(self.model, "use_head"):
                    self.model.use_head = False
        self.unused.requires_grad_(False)
        for parameter in self.never_trained():
            parameter.requires_grad_(False)

    def never_trained(self) -> list[nn.Parameter]:
        """Return the parameters that no image reaches: of unused layers, and the token of masked image modelling."""
        masks = [parameter for name, parameter in self.model.named_parameters() if name.endswith("mask_token")]
        return [*self.unused.parameters(), *masks]

    def whole(self, *, copied: bool = True) -> nn.Module:
        """Return the vision model with everything that was set aside back in its place.

        Args:
            copied: with weights of its own; False shares them.
        """
        memo: dict[int, Any] = {} if copied else {id(tensor): tensor for tensor in self._tensors()}
        model: Any = copy.deepcopy(self.model, memo)
        layers = model.get_submodule(self._path)
        for name, module in self.unused.items():
            if name.startswith("layer-"):
                continue
            setattr(model, name, copy.deepcopy(module, memo))
            if name == "head" and hasattr(model, "use_head"):
                model.use_head = True
        for index in range(len(layers), self.depth):
            layers.append(copy.deepcopy(self.unused[f"layer-{index}"], memo))
        made: nn.Module = model
        return made

    def _tensors(self) -> Iterator[Tensor]:
        for module in (self.model, self.unused):
            yield from module.parameters()
            yield from module.buffers()


def attention_received(query: Tensor, key: Tensor, mask: Tensor | None, scaling: float) -> Tensor:
    """Return how much each token is looked at (B, N), mean over heads and the tokens that look; without graph."""
    with torch.no_grad():
        total = query.new_zeros(query.size(0), key.size(2), dtype=torch.float32)
        for head in range(query.size(1)):
            logits = (query[:, head].float() @ key[:, head].float().mT) * scaling
            total += logits.softmax(-1).mean(1)
        return total / query.size(1)


def _listed(layer: int | Sequence[int]) -> list[int]:
    return [layer] if isinstance(layer, int) else list(layer)


def _run_to(layer: int, depth: int, label: str) -> int:
    """Return how many layers are run for a hidden state, 0 being the embeddings."""
    run = layer if layer >= 0 else depth + 1 + layer
    if not 1 <= run <= depth:
        raise ConfigError(
            f"feature layer {layer} of {label} does not exist: it has {depth} layers: 1 to {depth}, or -1 to -{depth}"
        )
    return run


def _side(config: Any, name: str) -> int:
    value = getattr(config, name, 0) or 0
    return int(value[0] if isinstance(value, list | tuple) else value)
