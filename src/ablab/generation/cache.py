"""Key-value caches for beam search that leave alone what all beams of a row have in common.

After every step transformers gathers the whole cache by the beams that go on: keys and values of the encoder's states
and of the prompt as well, though these are the same for every beam of a row. On long inputs that is half of the time
of generation.
"""

from __future__ import annotations

import functools
from typing import Any

from torch import LongTensor, nn


def beam_cache(model: nn.Module, *, prompt: int) -> Any | None:
    """Return a cache to hand to `generate` as past_key_values, or None where the model's own is better left alone.

    Args:
        model: of transformers, or an adapter around one.
        prompt: tokens of the padded prompt of a decoder-only model.
    """
    from transformers.cache_utils import DynamicCache, DynamicLayer

    inner: Any = model
    supports = getattr(inner, "_supports_default_dynamic_cache", None)
    if supports is None or not supports():
        return None
    layer, encoder = _classes()
    config = inner.config.get_text_config(decoder=True)
    cache = DynamicCache(config=config)
    if inner.config.is_encoder_decoder:
        return encoder(cache, DynamicCache(config=config))
    if not cache.layers or any(type(each) is not DynamicLayer for each in cache.layers):
        # Sliding windows and other states move on; what is shared does not stay in place.
        return None
    cache.layers = [layer(prompt) for _ in cache.layers]
    return cache


@functools.cache
def _classes() -> tuple[Any, Any]:
    """Return the classes of a layer and of an encoder-decoder's cache, made late: transformers is slow to load."""
    from transformers.cache_utils import DynamicLayer, EncoderDecoderCache

    class SharedPrompt(DynamicLayer):
        """A layer whose first `shared` positions are the same for all beams of a row."""

        def __init__(self, shared: int) -> None:
            super().__init__()  # type: ignore[no-untyped-call]
            self.shared = shared

        def reorder_cache(self, beam_idx: LongTensor) -> None:
            """Gather what comes after the shared positions."""
            if self.get_seq_length() > self.shared:
                assert self.keys is not None and self.values is not None
                for states in (self.keys, self.values):
                    own = states[:, :, self.shared :]
                    own.copy_(own.index_select(0, beam_idx.to(states.device)))

    class SharedEncoder(EncoderDecoderCache):
        """A cache whose cross-attention holds the same for all beams of a row."""

        def reorder_cache(self, beam_idx: LongTensor) -> None:
            """Gather the decoder's own states."""
            self.self_attention_cache.reorder_cache(beam_idx)

    return SharedPrompt, SharedEncoder
