"""Writes small checkpoints in InternVL's own format: vision tower, connector and InternLM2 decoder, in two shards."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

Draw = Callable[..., torch.Tensor]


def internlm2_config(**change: Any) -> dict[str, Any]:
    """Return an InternLM2 configuration, as such a checkpoint has it."""
    return {
        "architectures": ["InternLM2ForCausalLM"], "model_type": "internlm2", "max_position_embeddings": 64,
        "rms_norm_eps": 1e-5, "rope_theta": 1e6, "bias": False, "hidden_act": "silu",
        "rope_scaling": {"type": "dynamic", "factor": 2.0}, "tie_word_embeddings": False, **change,
    }  # fmt: skip


def vision_config(**change: Any) -> dict[str, Any]:
    """Return the configuration of a vision tower, as such a checkpoint has it."""
    return {
        "qkv_bias": True, "qk_normalization": False, "norm_type": "layer_norm", "layer_norm_eps": 1e-6,
        "hidden_act": "gelu", **change,
    }  # fmt: skip


def write_internvl(
    folder: Path, *, decoder: Mapping[str, Any], vision: Mapping[str, Any], drawn: Draw
) -> dict[str, torch.Tensor]:
    """Write a checkpoint with drawn weights, and return them by the names it has for them."""
    width, inner, vocabulary = decoder["hidden_size"], decoder["intermediate_size"], decoder["vocab_size"]
    heads, groups = decoder["num_attention_heads"], decoder["num_key_value_heads"]
    V, M, patch = vision["hidden_size"], vision["intermediate_size"], vision["patch_size"]
    head = width // heads
    state = {
        "language_model.model.tok_embeddings.weight": drawn(vocabulary, width),
        "language_model.model.norm.weight": 1 + drawn(width),
        "language_model.output.weight": drawn(vocabulary, width),
        "vision_model.embeddings.class_embedding": drawn(1, 1, V),
        "vision_model.embeddings.position_embedding": drawn(1, (vision["image_size"] // patch) ** 2 + 1, V),
        "vision_model.embeddings.patch_embedding.weight": drawn(V, 3, patch, patch),
        "vision_model.embeddings.patch_embedding.bias": drawn(V),
        "mlp1.0.weight": 1 + drawn(4 * V), "mlp1.0.bias": drawn(4 * V),
        "mlp1.1.weight": drawn(width, 4 * V), "mlp1.1.bias": drawn(width),
        "mlp1.3.weight": drawn(width, width), "mlp1.3.bias": drawn(width),
    }  # fmt: skip
    for n in range(decoder["num_hidden_layers"]):
        at = f"language_model.model.layers.{n}"
        state |= {
            f"{at}.attention.wqkv.weight": drawn((heads + 2 * groups) * head, width),
            f"{at}.attention.wo.weight": drawn(width, width),
            f"{at}.feed_forward.w1.weight": drawn(inner, width),
            f"{at}.feed_forward.w3.weight": drawn(inner, width),
            f"{at}.feed_forward.w2.weight": drawn(width, inner),
            f"{at}.attention_norm.weight": 1 + drawn(width),
            f"{at}.ffn_norm.weight": 1 + drawn(width),
        }
    for n in range(vision["num_hidden_layers"]):
        at = f"vision_model.encoder.layers.{n}"
        state |= {
            f"{at}.attn.qkv.weight": drawn(3 * V, V), f"{at}.attn.qkv.bias": drawn(3 * V),
            f"{at}.attn.proj.weight": drawn(V, V), f"{at}.attn.proj.bias": drawn(V),
            f"{at}.norm1.weight": 1 + drawn(V), f"{at}.norm1.bias": drawn(V),
            f"{at}.norm2.weight": 1 + drawn(V), f"{at}.norm2.bias": drawn(V),
            f"{at}.mlp.fc1.weight": drawn(M, V), f"{at}.mlp.fc1.bias": drawn(M),
            f"{at}.mlp.fc2.weight": drawn(V, M), f"{at}.mlp.fc2.bias": drawn(V),
            f"{at}.ls1": drawn(V), f"{at}.ls2": drawn(V),
        }  # fmt: skip
    places = {}
    for place, file in enumerate(("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")):
        names = sorted(state)[place::2]
        save_file({name: state[name] for name in names}, folder / file, metadata={"format": "pt"})
        places |= dict.fromkeys(names, file)
    index = {"metadata": {"total_size": sum(4 * each.numel() for each in state.values())}, "weight_map": places}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    config = {"model_type": "internvl_chat", "vision_config": vision, "llm_config": decoder, "ps_version": "v2"}
    (folder / "config.json").write_text(json.dumps(config))
    return state
