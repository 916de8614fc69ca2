"""The output head of a language model, where its logits are that head's product and nothing else.

Then they can be computed for a few positions, or by a loss that never holds them all. Where a model caps or scales its
logits, or an adapter stands on its head, only the model itself can make them.
"""

from __future__ import annotations

from typing import Any

from torch import nn

#: Decoders whose logits are their head's product, bias included, and nothing else.
_PLAIN = frozenset({
    "llama", "mistral", "qwen2", "qwen3", "gemma", "stablelm", "phi", "phi3", "gpt2", "gpt_neox", "opt", "smollm3",
})  # fmt: skip


def divided_head(llm: Any) -> tuple[nn.Linear, float] | None:
    """Return the head of a causal model and what its product is divided by (1 but for Granite and MiniCPM), else None.

    None is a model whose logits are something else than that.
    """
    plain = plain_head(llm)
    if plain is not None:
        return plain, 1.0
    head = llm.get_output_embeddings()
    if llm.config.model_type == "granite" and type(head) is nn.Linear:
        return head, float(llm.config.logits_scaling)
    return None


def plain_head(llm: Any) -> nn.Linear | None:
    """Return the head of a causal model of transformers where logits are its product, else None."""
    head, config = llm.get_output_embeddings(), llm.config
    scaled = getattr(config, "final_logit_softcapping", None) or getattr(config, "logit_scale", None)
    return head if config.model_type in _PLAIN and type(head) is nn.Linear and not scaled else None
