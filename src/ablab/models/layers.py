"""Finds the layers of a transformer and the linear matrices in them, whatever the architecture calls them."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from torch import nn

from ablab.contract.failure import ConfigError

#: Modules with a matrix that adapters can stand beside, by class name: Conv1D is GPT-2's linear layer.
LINEAR = ("Linear", "Linear4bit", "Linear8bitLt", "Conv1D")


def layer_lists(module: nn.Module) -> dict[str, nn.ModuleList]:
    """Return the lists of layers by dotted name: module lists that stand inside no other one, of equal classes.

    A decoder-only model or a tower has one, an encoder-decoder two.
    """
    found: dict[str, nn.ModuleList] = {}
    for name, child in module.named_modules():
        if not isinstance(child, nn.ModuleList) or len({type(layer) for layer in child}) != 1:
            continue
        if not any(name.startswith(f"{other}.") for other in found) and _is_block(child[0]):
            found[name] = child
    return found


def _is_block(layer: nn.Module) -> bool:
    """Whether it holds several modules with matrices: a block of a transformer, not a single projection."""
    return sum(is_linear(module) for module in layer.modules()) > 1


def is_linear(module: nn.Module) -> bool:
    """Whether adapters can stand beside it."""
    return isinstance(module, nn.Linear) or type(module).__name__ in LINEAR


def layers_of(module: nn.Module, *, part: str) -> tuple[str, nn.ModuleList]:
    """Return the one list of layers of a part with its dotted name.

    Raises:
        ConfigError: there is none, or more than one.
    """
    found = layer_lists(module)
    if len(found) != 1:
        names = ", ".join(f"{part}.{name}" for name in found) or "none"
        raise ConfigError(f"from_layer needs a part with one list of layers; {part} has {len(found)}: {names}")
    return next(iter(found.items()))


def nearest_names(wanted: str, names: Iterable[str], *, count: int = 4) -> str:
    """Return the names most like `wanted`, or the first ones, for a message."""
    known = list(dict.fromkeys(names))
    return ", ".join(difflib.get_close_matches(wanted, known, n=count, cutoff=0.3) or known[:count]) or "none"
