"""Towers whose inside is read: the token states after chosen layers of a transformer, or stages of a convolution.

A tower is any module that holds its layers in one list (`encoder.layers`, `resblocks`, `stages`) or numbers its stages
(`layer1` to `layer4` of a ResNet); what the layers at the taps return is caught by hooks, so no architecture needs code
of its own. Layers of a list behind the last tap are removed: nobody reads them. Loading towers is
`ablab.models.towers`', fusing what they say `ablab.models.fusion`'s.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import count, takewhile
from typing import Any

import torch
from torch import Tensor, nn

from ablab.contract.failure import ConfigError

#: What architectures call the list of their layers; the outermost such list of a tower is tapped.
LISTS = ("layers", "layer", "blocks", "resblocks", "stages", "h")


def spread(count: int, depth: int) -> tuple[int, ...]:
    """Return `count` layers evenly spread over `depth`, the last one included: 3 of 12 are 3, 7, 11; of 9, 2, 5, 8."""
    return tuple(round((index + 1) * depth / count) - 1 for index in range(count))


def resolve_taps(
    wanted: str | tuple[Sequence[int], Sequence[int]], *, text_depth: int, vision_depth: int
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the layers of the text and of the vision tower, validated.

    Args:
        wanted: last, thirds (early, middle, late), all (as many as the shallower tower has layers), or both lists.
        text_depth, vision_depth: layers of the towers.

    Raises:
        ConfigError: a layer that a tower does not have, an order that does not rise, or lists of unequal length.
    """
    if isinstance(wanted, str):
        shallow = min(text_depth, vision_depth)
        count = {"last": 1, "thirds": min(3, shallow), "all": shallow}[wanted]
        return spread(count, text_depth), spread(count, vision_depth)
    text, vision = tuple(wanted[0]), tuple(wanted[1])
    for tower, taps, depth in (("text", text, text_depth), ("vision", vision, vision_depth)):
        if problem := tap_problem(tower, taps, depth):
            raise ConfigError(problem, tower=tower, taps=list(taps), depth=depth)
    if len(text) != len(vision):
        raise ConfigError(
            f"model.taps: text has {len(text)} taps and vision {len(vision)}; the fusion takes them in pairs, so give "
            "as many of each"
        )
    return text, vision


def tap_problem(tower: str, taps: Sequence[int], depth: int) -> str | None:
    """Return what is wrong with the taps of a tower, or None."""
    valid = f"valid taps are 0 to {depth - 1}, for example {', '.join(map(str, spread(min(3, depth), depth)))}"
    wrong = [tap for tap in taps if not 0 <= tap < depth]
    if wrong:
        return f"model.taps.{tower}: the {tower} tower has {depth} layers, so there is no layer {wrong[0]}; {valid}"
    if not taps or list(taps) != sorted(set(taps)):
        return f"model.taps.{tower}: expected rising layers, found {list(taps)}; {valid}"
    return None


def layer_names(model: nn.Module) -> tuple[str, ...]:
    """Return the names of a tower's layers: those of its list, else stages that are numbered from 1.

    Raises:
        ConfigError: it has neither.
    """
    stages = [name for name, _ in model.named_modules() if name.rpartition(".")[2] == "layer1"]
    try:
        path, layers = layer_list(model)
    except ConfigError:
        if not stages:
            raise
    else:
        # The blocks of a stage are a list too, inside it.
        if not any(path.startswith(f"{stage}.") for stage in stages):
            return tuple(f"{path}.{index}" for index in range(len(layers)))
    stem = min(stages, key=lambda name: name.count(".")).removesuffix("1")
    known = {name for name, _ in model.named_modules()}
    return tuple(takewhile(known.__contains__, (f"{stem}{number}" for number in count(1))))


def layer_list(model: nn.Module) -> tuple[str, nn.ModuleList | nn.Sequential]:
    """Return the name and the list of a tower's layers: the outermost of the known names, the longest of several.

    Raises:
        ConfigError: it has none.
    """
    found = [
        (name, module)
        for name, module in model.named_modules()
        if name.rpartition(".")[2] in LISTS and isinstance(module, nn.ModuleList | nn.Sequential) and len(module)
    ]
    if not found:
        raise ConfigError(
            f"{type(model).__name__} has no list of layers named {', '.join(LISTS)}; it cannot be tapped",
        )
    outer = min(name.count(".") for name, _ in found)
    return max((each for each in found if each[0].count(".") == outer), key=lambda each: len(each[1]))


class TappedTower(nn.Module):
    """A tower that returns the token states after its tapped layers; at first all of them.

    Batch norms keep their statistics in training too where `keep_statistics` is set: otherwise a tower that is frozen
    would change, and a batch would have other states than its chunks.

    Args:
        model: the tower; called with the keyword arguments that `forward` gets.
        probe: inputs of one small sample, by which widths are measured.
    """

    def __init__(self, model: nn.Module, *, probe: dict[str, Tensor]) -> None:
        super().__init__()
        self.model, self._probe = model, probe
        self.keep_statistics = False
        self._layers = layer_names(model)
        self.depth = len(self._layers)
        self.taps = tuple(range(self.depth))
        with torch.no_grad():
            was = model.training
            states = self.eval()(**probe)
            self.train(was)
        #: Channels and tokens of the states after each tap, for the probe.
        self.widths = tuple(state.size(2) for state in states)
        self.tokens = tuple(state.size(1) for state in states)

    def tap(self, taps: Sequence[int]) -> TappedTower:
        """Read these layers from now on, and drop those behind the last of them."""
        layers = self.model.get_submodule(self._layers[0].rpartition(".")[0])
        if isinstance(layers, nn.ModuleList | nn.Sequential):
            del layers[taps[-1] + 1 :]
        self.widths = tuple(self.widths[tap] for tap in taps)
        self.tokens = tuple(self.tokens[tap] for tap in taps)
        self.taps = tuple(taps)
        return self

    def train(self, mode: bool = True) -> TappedTower:
        """Change the mode, but for batch norms that keep their statistics."""
        super().train(mode)
        for norm in self.batch_norms() if self.keep_statistics else ():
            norm.eval()
        return self

    def batch_norms(self) -> list[nn.Module]:
        """Return the layers whose result for one item depends on the others of its batch."""
        return [module for module in self.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]

    def freeze_unread(self) -> TappedTower:
        """Stop the gradient of what no tap reaches (a norm behind the last layer, a pooler): it counts as frozen."""
        device = next(self.model.parameters()).device
        was = self.training
        with torch.enable_grad():
            states = self.eval()(**{name: value.to(device) for name, value in self._probe.items()})
        self.train(was)
        trained = [parameter for parameter in self.parameters() if parameter.requires_grad]
        if trained and any(state.requires_grad for state in states):
            total = torch.stack([state.sum() for state in states]).sum()
            for parameter, gradient in zip(
                trained, torch.autograd.grad(total, trained, allow_unused=True), strict=True
            ):
                if gradient is None:
                    parameter.requires_grad_(False)
        return self

    def forward(self, **inputs: Any) -> list[Tensor]:
        """Return the states after each tap, (B, T, C) each; feature maps (B, C, h, w) become tokens h x w."""
        caught: dict[int, Tensor] = {}
        tapped = {tap: self.model.get_submodule(self._layers[tap]) for tap in self.taps}
        hooks = [layer.register_forward_hook(_catcher(caught, tap)) for tap, layer in tapped.items()]
        try:
            self.model(**inputs)
        finally:
            for hook in hooks:
                hook.remove()
        return [tokens_of(caught[tap]) for tap in self.taps]


def _catcher(caught: dict[int, Tensor], tap: int) -> Callable[[nn.Module, Any, Any], None]:
    def catch(_: nn.Module, __: Any, output: Any) -> None:
        caught[tap] = output if isinstance(output, Tensor) else output[0]

    return catch


def tokens_of(states: Tensor) -> Tensor:
    """Return states as (B, T, C): feature maps are flattened, row by row."""
    return states.flatten(2).transpose(1, 2) if states.ndim == 4 else states
