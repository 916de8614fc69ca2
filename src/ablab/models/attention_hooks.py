"""Reaches into the attention of any transformers model through its attention interface, where q and k arrive.

Two uses share it: turning q and k before the product (`ablab.models.vision.rotary2d`), and noting what a layer looked
at (`ablab.models.pyramid`, `ablab.models.language_drop`). No model code is copied, and the product itself stays the
model's own implementation.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from ablab.contract.failure import ConfigError
from ablab.models.layers import layers_of

#: Turns (query, key), each (B, heads, N, D).
Turn = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
#: Takes query (B, heads, N, D), key (B, kv heads, M, D), mask and scaling; what it returns is kept.
Note = Callable[[Tensor, Tensor, Tensor | None, float], Tensor]

_PREFIX = "ablab_"


class AttentionHooks:
    """What happens in the attention of one model. `attach` puts it there.

    Attributes:
        turn: applied to query and key of every layer; None leaves them.
        notes: by layer, 0-based.
        heard: what the notes of the last call returned, by layer.
    """

    def __init__(self) -> None:
        self.turn: Turn | None = None
        self.notes: dict[int, Note] = {}
        self.heard: dict[int, Tensor] = {}


def attach(model: Any, *, part: str = "model") -> AttentionHooks:
    """Return the hooks of a model, put into its attention if they are not there yet.

    Args:
        model: of transformers, with one list of layers.
        part: what it is called in messages.

    Raises:
        ConfigError: a model that does not go through the attention interface.
    """
    found = model.__dict__.get("_ablab_hooks")
    if isinstance(found, AttentionHooks):
        return found
    base = model.config._attn_implementation
    name = _PREFIX + base
    _register(name, base)
    model.set_attn_implementation(name)
    if model.config._attn_implementation != name:
        raise ConfigError(
            f"{part}: {type(model).__name__} has no attention interface; it can be neither turned nor heard"
        )
    hooks = AttentionHooks()
    _, layers = layers_of(model, part=part)
    for index, layer in enumerate(layers):
        for module in layer.modules():
            module.__dict__["_ablab_hooks"], module.__dict__["_ablab_layer"] = hooks, index
    model.__dict__["_ablab_hooks"] = hooks
    return hooks


def base_implementation(model: Any) -> str:
    """Return the attention implementation below the hooks (sdpa, eager, ...)."""
    name: str = model.config._attn_implementation
    return name.removeprefix(_PREFIX)


def _register(name: str, base: str) -> None:
    """Make a name known to transformers: the implementation `base` with hooks before it, and its masks."""
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    def hooked(
        module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **options: Any
    ) -> Any:
        hooks = module.__dict__.get("_ablab_hooks")
        if hooks is not None:
            if hooks.turn is not None:
                query, key = hooks.turn(query, key)
            layer = module.__dict__["_ablab_layer"]
            if layer in hooks.notes:
                scaling = options.get("scaling") or query.size(-1) ** -0.5
                hooks.heard[layer] = hooks.notes[layer](query, key, attention_mask, scaling)
        own: Any = getattr(sys.modules[type(module).__module__], "eager_attention_forward", None)
        return ALL_ATTENTION_FUNCTIONS.get_interface(base, own)(module, query, key, value, attention_mask, **options)

    AttentionInterface.register(name, hooked)
    AttentionMaskInterface.register(name, ALL_MASK_ATTENTION_FUNCTIONS[base])
