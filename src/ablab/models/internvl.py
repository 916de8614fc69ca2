"""Loads InternVL checkpoints of their own format (InternVL2.5-8B and its sizes) as classes of transformers.

Such a checkpoint holds a vision tower, a connector and a decoder under names of its own; the decoder of the 2B, 8B and
26B sizes is InternLM2, for which transformers has no class: it is a Llama whose query, key and value lie in one matrix,
group by group. Nothing of the repository's code runs. Each part is read alone, so that one name can stand for the
decoder, the tower and the connector of a study.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ablab.contract.failure import ConfigError, DataError

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

#: model_type of such a checkpoint.
MODEL_TYPE = "internvl_chat"

Renamed = Iterator[tuple[str, Tensor]]

_DECODER, _TOWER, _CONNECTOR = "language_model.", "vision_model.", "mlp1."

_INTERNLM2 = {
    "model.tok_embeddings.": "model.embed_tokens.",
    "output.": "lm_head.",
    ".attention.wo.": ".self_attn.o_proj.",
    ".feed_forward.w1.": ".mlp.gate_proj.",
    ".feed_forward.w3.": ".mlp.up_proj.",
    ".feed_forward.w2.": ".mlp.down_proj.",
    ".attention_norm.": ".input_layernorm.",
    ".ffn_norm.": ".post_attention_layernorm.",
}
_VISION = {
    "embeddings.class_embedding": "embeddings.cls_token",
    "embeddings.position_embedding": "embeddings.position_embeddings",
    "embeddings.patch_embedding.": "embeddings.patch_embeddings.projection.",
    "encoder.layers.": "encoder.layer.",
    ".attn.proj.": ".attention.projection_layer.",
    ".attn.q_norm.": ".attention.q_norm.",
    ".attn.k_norm.": ".attention.k_norm.",
    ".norm1.": ".layernorm_before.",
    ".norm2.": ".layernorm_after.",
    ".ls1": ".lambda_1",
    ".ls2": ".lambda_2",
}
#: The connector is Sequential(LayerNorm, Linear, GELU, Linear) over pixel-shuffled features.
_MLP = {"0.": "norm.", "1.": "linear_1.", "3.": "linear_2."}


@dataclass(frozen=True, kw_only=True)
class InternVLConfig:
    """What `config.json` of a checkpoint says, as far as loading needs it."""

    folder: Path
    vision: Mapping[str, Any]
    decoder: Mapping[str, Any]
    downsample: float
    select_layer: int

    @property
    def is_internlm2(self) -> bool:
        """Whether the decoder is InternLM2."""
        return "InternLM2ForCausalLM" in self.decoder.get("architectures", ())


def is_internvl(folder: Path) -> bool:
    """Whether a folder holds a checkpoint of this format."""
    try:
        found = json.loads((folder / "config.json").read_bytes())
    except (OSError, ValueError):
        return False
    return isinstance(found, dict) and found.get("model_type") == MODEL_TYPE


def read_config(folder: Path) -> InternVLConfig:
    """Read the configuration of a checkpoint.

    Raises:
        DataError: none is there, or it says something else.
        ConfigError: a variant whose results would differ from what transformers computes.
    """
    file = folder / "config.json"
    try:
        found = json.loads(file.read_bytes())
        config = InternVLConfig(
            folder=folder,
            vision=found["vision_config"],
            decoder=found["llm_config"],
            downsample=float(found.get("downsample_ratio", 0.5)),
            select_layer=int(found.get("select_layer", -1)),
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{file}: no configuration of an InternVL checkpoint ({error})", file=str(file), row=None
        ) from error
    if found.get("ps_version", "v2") != "v2":
        raise ConfigError(
            f"{file}: ps_version {found['ps_version']!r}; only v2 keeps rows and columns apart", file=str(file)
        )
    return config


def load_decoder(folder: Path, *, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    """Return the decoder with its head: LlamaForCausalLM for InternLM2, else the class its configuration names.

    Raises:
        DataError: weights are missing or left over; the message names them.
    """
    from transformers import AutoConfig, AutoModelForCausalLM, LlamaConfig

    config = read_config(folder)
    if config.is_internlm2:
        return _filled(
            lambda: AutoModelForCausalLM.from_config(LlamaConfig(**llama_settings(config.decoder)), dtype=dtype),
            _internlm2(config),
            folder=folder,
            dtype=dtype,
        )
    settings = dict(config.decoder)
    own = AutoConfig.for_model(settings.pop("model_type"), **settings)
    tensors = ((name.removeprefix(_DECODER), tensor) for name, tensor in _read(folder, _DECODER))
    return _filled(lambda: AutoModelForCausalLM.from_config(own, dtype=dtype), tensors, folder=folder, dtype=dtype)


def load_tower(folder: Path, *, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    """Return the tower as transformers' InternVLVisionModel; its last state has no norm, as in the original.

    Raises:
        DataError: weights are missing or left over.
    """
    from transformers import AutoModel, InternVLVisionConfig

    config = read_config(folder)
    own = InternVLVisionConfig(**vision_settings(config.vision))
    return _filled(lambda: AutoModel.from_config(own, dtype=dtype), _vision(config), folder=folder, dtype=dtype)


def configuration(raw: Mapping[str, Any]) -> PreTrainedConfig:
    """Return a checkpoint's configuration as transformers' InternVL one: `vision_config` and `text_config`.

    Args:
        raw: the content of its `config.json`.
    """
    from transformers import AutoConfig, InternVLConfig, InternVLVisionConfig, LlamaConfig

    decoder = dict(raw["llm_config"])
    internlm2 = "InternLM2ForCausalLM" in decoder.get("architectures", ())
    text = (
        LlamaConfig(**llama_settings(decoder))
        if internlm2
        else AutoConfig.for_model(decoder.pop("model_type"), **decoder)
    )
    return InternVLConfig(vision_config=InternVLVisionConfig(**vision_settings(raw["vision_config"])), text_config=text)


def load_tokenizer(model: Path) -> PreTrainedTokenizerBase:
    """Return InternLM2's tokenizer, a sentencepiece model with byte fallback, without the repository's code.

    Args:
        model: its `tokenizer.model`; added tokens stand beside it in `tokenizer_config.json`.
    """
    from sentencepiece import sentencepiece_model_pb2
    from transformers import LlamaTokenizer

    described = sentencepiece_model_pb2.ModelProto.FromString(model.read_bytes())  # type: ignore[attr-defined]  # made at import
    prefix = bool(described.normalizer_spec.add_dummy_prefix)
    found: PreTrainedTokenizerBase = LlamaTokenizer.from_pretrained(model.parent, add_prefix_space=prefix)
    return found


def load_connector(folder: Path, *, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    """Return the connector's tensors: norm (over 4 V channels), linear_1 (4 V to D), linear_2 (D to D)."""
    return {
        _renamed(name.removeprefix(_CONNECTOR), _MLP): tensor.to(dtype) for name, tensor in _read(folder, _CONNECTOR)
    }


def llama_settings(decoder: Mapping[str, Any]) -> dict[str, Any]:
    """Return InternLM2's configuration in Llama's words.

    Raises:
        ConfigError: an option that Llama does not have.
    """
    if decoder.get("bias", False):
        raise ConfigError(
            "an InternLM2 decoder with biases is not known to exist and cannot be loaded as a Llama", bias=True
        )
    same = (
        "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
        "num_key_value_heads", "max_position_embeddings", "rms_norm_eps", "hidden_act", "initializer_range",
        "tie_word_embeddings", "bos_token_id", "eos_token_id", "pad_token_id",
    )  # fmt: skip
    rope: dict[str, Any] = {"rope_type": "default", "rope_theta": float(decoder.get("rope_theta", 10000.0))}
    scaling = decoder.get("rope_scaling")
    if scaling:
        rope |= {"rope_type": scaling.get("type", scaling.get("rope_type")), "factor": float(scaling["factor"])}
    settings = {name: decoder[name] for name in same if name in decoder}
    return settings | {"attention_bias": False, "mlp_bias": False, "rope_parameters": rope}


def vision_settings(vision: Mapping[str, Any]) -> dict[str, Any]:
    """Return the original tower's configuration in transformers' words."""
    same = (
        "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_channels", "image_size",
        "patch_size", "hidden_act", "norm_type", "layer_norm_eps", "attention_dropout",
    )  # fmt: skip
    return {
        **{name: vision[name] for name in same if name in vision},
        "attention_bias": bool(vision.get("qkv_bias", False)),
        "use_qk_norm": bool(vision.get("qk_normalization", False)),
        "use_mean_pooling": True,
    }


def split_groups(packed: Tensor, *, heads: int, kv_heads: int) -> tuple[Tensor, Tensor, Tensor]:
    """Split InternLM2's `wqkv`, which holds for each key-value head its queries, then its key, then its value.

    Args:
        packed: ((heads + 2 kv_heads) x D, ...).
        heads: query heads.
        kv_heads: key-value heads.

    Returns:
        Query (heads x D, ...), key and value (kv_heads x D, ...).
    """
    each = heads // kv_heads
    groups = packed.unflatten(0, (kv_heads, each + 2, -1))
    query, key, value = groups[:, :each], groups[:, each], groups[:, each + 1]
    return query.flatten(0, 2), key.flatten(0, 1), value.flatten(0, 1)


def _internlm2(config: InternVLConfig) -> Renamed:
    heads, kv_heads = config.decoder["num_attention_heads"], config.decoder["num_key_value_heads"]
    for name, tensor in _read(config.folder, _DECODER):
        own = name.removeprefix(_DECODER)
        if ".attention.wqkv." not in own:
            yield _renamed(own, _INTERNLM2), tensor
            continue
        for letter, part in zip("qkv", split_groups(tensor, heads=heads, kv_heads=kv_heads), strict=True):
            yield own.replace(".attention.wqkv.", f".self_attn.{letter}_proj."), part


def _vision(config: InternVLConfig) -> Renamed:
    for name, tensor in _read(config.folder, _TOWER):
        own = name.removeprefix(_TOWER)
        if ".attn.qkv." not in own:
            yield _renamed(own, _VISION), tensor
            continue
        target = own.replace("encoder.layers.", "encoder.layer.")
        for letter, part in zip("qkv", tensor.chunk(3), strict=True):
            yield target.replace(".attn.qkv.", f".attention.{letter}_proj."), part


def _renamed(name: str, words: Mapping[str, str]) -> str:
    pattern = "|".join(re.escape(word) for word in sorted(words, key=len, reverse=True))
    return re.sub(pattern, lambda found: words[found[0]], name)


def _read(folder: Path, prefix: str) -> Renamed:
    """Yield the tensors of one part, shard by shard."""
    from safetensors import safe_open

    shards = sorted(folder.glob("*.safetensors"))
    if not shards:
        raise DataError(f"{folder}: no *.safetensors here", file=str(folder), row=None)
    for shard in shards:
        with safe_open(shard, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118 - not a mapping
                if name.startswith(prefix):
                    yield name, file.get_tensor(name)


def _filled(
    build: Callable[[], PreTrainedModel], tensors: Renamed, *, folder: Path, dtype: torch.dtype
) -> PreTrainedModel:
    """Build a model without memory and put tensors into it; nothing may be missing or left over."""
    with torch.device("meta"):
        model = build()
    missing, left = model.load_state_dict(
        {name: tensor.to(dtype) for name, tensor in tensors}, strict=False, assign=True
    )
    model.tie_weights()
    absent = [name for name in missing if model.get_parameter_or_buffer(name).is_meta]
    if absent or left:
        raise DataError(
            f"{folder}: weights missing: {', '.join(absent[:5]) or 'none'}; not known: {', '.join(left[:5]) or 'none'}",
            file=str(folder),
            row=None,
        )
    _make_buffers(model)
    model.eval()
    return model


def _make_buffers(model: PreTrainedModel) -> None:
    """Compute what no checkpoint holds (rotary frequencies), which the empty model could not."""
    for module in model.modules():
        if any(buffer.is_meta for buffer in module.buffers(recurse=False)):
            fresh = type(module)(config=module.config)
            for name, buffer in fresh.named_buffers(recurse=False):
                setattr(module, name, buffer)
