"""What turns features of a tower into inputs of a language model, by name; one small file each.

A connector is a module called with features (N, F, V), float, that returns (N, Q, D). It may hold `tokens`, the Q it
makes of an image (F where it says nothing), and `auxiliary`, a mean loss of its last call that is added to the
model's.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import nn

from ablab.contract.failure import ConfigError
from ablab.contract.registry import find_component, is_file_reference, nearest

#: Module and class by name; each takes vision_width, language_width, patches and its own options.
_BUILT_IN = {
    "c_abstractor": ("c_abstractor", "CAbstractorConnector"),
    "identity": ("identity", "Identity"),
    "linear": ("linear", "LinearConnector"),
    "moe_mlp": ("moe_mlp", "MixtureConnector"),
    "pixel_shuffle": ("pixel_shuffle", "PixelShuffle"),
    "pyramid_c_abstractor": ("c_abstractor", "PyramidCAbstractorConnector"),
    "resampler": ("resampler", "Resampler"),
}
_MLP = re.compile(r"mlp(\d+)x_gelu")


def build_connector(
    name: str, *, vision_width: int, language_width: int, patches: int, folder: str | Path | None = None, **options: Any
) -> nn.Module:
    """Return the connector called `name`.

    Args:
        name: identity, linear, mlpNx_gelu, moe_mlp, resampler, pixel_shuffle, c_abstractor, pyramid_c_abstractor, or
            file.py:Name.
        vision_width: V.
        language_width: D.
        patches: F.
        folder: where a relative file.py starts.
        **options: of the connector; those it does not take are an error.

    Raises:
        ConfigError: an unknown name, or an option the connector does not have.
    """
    sizes = {"vision_width": vision_width, "language_width": language_width, "patches": patches}
    if is_file_reference(name):
        made: nn.Module = find_component(name, folder=folder, like=connector)(**sizes)
        return made
    layers = _MLP.fullmatch(name)
    if layers:
        from ablab.models.connectors.mlp import MLPConnector

        return MLPConnector(**sizes, layers=int(layers[1]))
    if name not in _BUILT_IN:
        known = (*_BUILT_IN, "mlp2x_gelu")
        near = nearest(name, known)
        hint = f"; did you mean {near}?" if near else ""
        raise ConfigError(f"unknown connector {name!r}{hint} Known: {', '.join(_BUILT_IN)}, mlpNx_gelu, file.py:Name")
    from importlib import import_module

    module, attribute = _BUILT_IN[name]
    make: Callable[..., nn.Module] = getattr(import_module(f"{__name__}.{module}"), attribute)
    return make(**sizes, **options)


def connector(*, vision_width: int, language_width: int, patches: int) -> nn.Module:
    """Stand for the signature of a connector of one's own."""
    raise TypeError("only its signature is used")
