"""MiniCPM-2B and its sizes as a class of transformers, without the repository's code.

MiniCPM is a Llama with three constants: embedded tokens are multiplied by `scale_emb`, what each block adds to the
residual stream by scale_depth / sqrt(layers), and the states before the head are divided by hidden_size /
dim_model_base. transformers' Granite is a Llama with just these constants, and its tensors have the same names, so that
a checkpoint of MiniCPM loads as one. (Its own code, written for transformers 4.36, multiplies only tokens that it
embeds itself: embeddings with images among them come out of it unscaled, twelve times too small.)
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ablab.contract.failure import ConfigError

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

#: model_type of such a checkpoint, and the name under which a loaded one is still known for what it is.
MODEL_TYPE = "minicpm"
FAMILY = "ablab_family"

#: Entries that mean the same in both.
_SHARED = (
    "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
    "num_key_value_heads", "hidden_act", "max_position_embeddings", "initializer_range", "rms_norm_eps", "use_cache",
    "pad_token_id", "bos_token_id", "eos_token_id", "attention_bias", "attention_dropout",
)  # fmt: skip


def is_minicpm(config: Mapping[str, Any]) -> bool:
    """Whether the content of a `config.json` is MiniCPM's (not MiniCPM3's, nor that of a model with a tower)."""
    return config.get("model_type") == MODEL_TYPE or "MiniCPMForCausalLM" in (config.get("architectures") or ())


def minicpm_config(config: Mapping[str, Any]) -> PreTrainedConfig:
    """Return the configuration of Granite that computes what a MiniCPM of this `config.json` computes.

    Raises:
        ConfigError: a variant that Granite does not hold (scaled rotary positions, sparse attention, experts).
    """
    from transformers import GraniteConfig

    odd = [name for name in ("rope_scaling", "sparse_config", "num_experts") if config.get(name)]
    if odd:
        raise ConfigError(f"a MiniCPM with {', '.join(odd)} is not known here; MiniCPM-1B and -2B are")
    width, layers = int(config["hidden_size"]), int(config["num_hidden_layers"])
    made: PreTrainedConfig = GraniteConfig(
        **{name: config[name] for name in _SHARED if name in config},
        tie_word_embeddings=bool(config.get("tie_word_embeddings", True)),
        rope_parameters={"rope_type": "default", "rope_theta": float(config.get("rope_theta", 10000.0))},
        embedding_multiplier=float(config.get("scale_emb", 1)),
        residual_multiplier=float(config.get("scale_depth", 1)) / math.sqrt(layers),
        attention_multiplier=1 / math.sqrt(width // int(config["num_attention_heads"])),
        logits_scaling=width / float(config.get("dim_model_base", 1)),
    )
    setattr(made, FAMILY, MODEL_TYPE)
    return made


def family_of(config: Any) -> str:
    """Return what a language model is, for its chat template: its model_type, or what it was before it was loaded."""
    return str(getattr(config, FAMILY, config.model_type))
