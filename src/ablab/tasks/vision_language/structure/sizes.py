"""How large the parts of a vision-language model are and what training them holds on a device, by arithmetic; no torch.

Architectures come from the study (a configuration) or from a table of models that studies name. What a model really
holds a probe tells; this is for models that are too large to be built where a study is written.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ablab.contract.models import ModelReference
from ablab.contract.training import Trainability
from ablab.tasks.vision_language.config import Phase
from ablab.tasks.vision_language.sections import Data, Model

#: Architectures by hub name, as far as sizes need them, by transformers' names; an InternVL checkpoint is decoder and
#: tower.
_INTERNLM2_7B = {
    "model_type": "llama", "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32,
    "num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 92553,
}  # fmt: skip
_INTERNVIT_300M = {
    "model_type": "internvl_vision", "hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24,
    "num_attention_heads": 16, "image_size": 448, "patch_size": 14,
}  # fmt: skip
DECODERS: dict[str, dict[str, Any]] = {
    "OpenGVLab/InternVL2_5-8B": _INTERNLM2_7B,
    "OpenGVLab/InternVL2_5-8B-MPO": _INTERNLM2_7B,
    "TinyLlama/TinyLlama-1.1B-Chat-v1.0": {
        "model_type": "llama", "hidden_size": 2048, "intermediate_size": 5632, "num_hidden_layers": 22,
        "num_attention_heads": 32, "num_key_value_heads": 4, "vocab_size": 32000,
    },
}  # fmt: skip
TOWERS: dict[str, dict[str, Any]] = {
    "OpenGVLab/InternVL2_5-8B": _INTERNVIT_300M,
    "OpenGVLab/InternVL2_5-8B-MPO": _INTERNVIT_300M,
    "openai/clip-vit-large-patch14-336": {
        "model_type": "clip_vision_model", "hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24,
        "num_attention_heads": 16, "image_size": 336, "patch_size": 14,
    },
    "google/siglip-so400m-patch14-384": {
        "model_type": "siglip_vision_model", "hidden_size": 1152, "intermediate_size": 4304, "num_hidden_layers": 27,
        "num_attention_heads": 16, "image_size": 384, "patch_size": 14,
    },
}  # fmt: skip
#: Decoders whose feed-forward layers have a gate, and no biases.
_GATED = frozenset({"llama", "mistral", "gemma", "minicpm", "internlm2"})
_BYTES = {"fp32": 4, "bf16": 2, "fp16": 2}
#: Numbers that a layer keeps a token and channel for its backward pass (Korthikanti et al. 2022, arXiv 2205.05198, the
#: linear term in 16 bits; attention itself is computed again by its kernel).
_KEPT = 34
#: Tokens whose logits are held at once, about (`ablab.models.loss`).
_LOGITS = 1024


@dataclass(frozen=True, kw_only=True)
class Part:
    """Sizes of one part.

    Args:
        total, trained: parameters.
        width, layers: of its hidden states; 0 where it has none that count.
    """

    total: int
    trained: int
    bytes: float
    width: int = 0
    layers: int = 0


@dataclass(frozen=True, kw_only=True)
class Memory:
    """Bytes that training holds on one device, by what holds them."""

    items: Mapping[str, int] = field(default_factory=dict)

    @property
    def total(self) -> int:
        """All of it."""
        return sum(self.items.values())


def architecture(reference: ModelReference, known: Mapping[str, Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """Return a model's configuration where the study writes it or its name is known."""
    return reference.config if reference.config is not None else known.get(reference.name or "")


def decoder_parameters(config: Mapping[str, Any]) -> int | None:
    """Return the parameters of a decoder with gated feed-forward layers and no biases; None for other kinds."""
    if config.get("model_type") not in _GATED:
        return None
    width, layers = config["hidden_size"], config["num_hidden_layers"]
    vocabulary = config.get("vocab_size")
    if vocabulary is None:
        return None
    embeddings = vocabulary * width * (1 if config.get("tie_word_embeddings") else 2)
    return int(embeddings + layers * (_attention(config) + feed_forward(config) + 2 * width) + width)


def _attention(config: Mapping[str, Any]) -> int:
    width, heads = config["hidden_size"], config["num_attention_heads"]
    head = config.get("head_dim") or width // heads
    groups = config.get("num_key_value_heads") or heads
    return int(2 * width * head * (heads + groups))


def feed_forward(config: Mapping[str, Any]) -> int:
    """Return the parameters of one gated feed-forward layer."""
    return int(3 * config["hidden_size"] * config["intermediate_size"])


def tower_parameters(config: Mapping[str, Any]) -> int:
    """Return the parameters of a vision transformer, without a pooling head."""
    width, inner, layers = config["hidden_size"], config["intermediate_size"], config["num_hidden_layers"]
    scales = 2 * width if config.get("model_type") == "internvl_vision" else 0
    layer = 4 * width**2 + 4 * width + 2 * width * inner + inner + width + 4 * width + scales
    return int(layers * layer + 3 * config["patch_size"] ** 2 * width + (patches(config) + 3) * width)


def patches(config: Mapping[str, Any]) -> int:
    """Return the patches of an image."""
    return int((config["image_size"] // config["patch_size"]) ** 2)


def connector_parameters(model: Model, vision: int, language: int) -> int:
    """Return about how many parameters a connector has: what reads the features, then a square matrix."""
    by = model.connector.by**2 if model.connector.name == "pixel_shuffle" else 1
    blocks = 16 * vision**2 if "abstractor" in model.connector.name else 0
    scales = 1 if model.pyramid is None else len(model.pyramid.scales)
    return int(blocks + by * scales * vision * language + language**2)


def parts_of(model: Model, phase: Phase) -> dict[str, Part] | None:
    """Return the sizes of the three parts as a phase trains them; None where an architecture is not known."""
    llm, tower = architecture(model.llm, DECODERS), architecture(model.tower, TOWERS)
    decoder = None if llm is None else decoder_parameters(llm)
    if llm is None or decoder is None or tower is None or "image_size" not in tower:
        return None
    trains = {name: phase.parts.get(name) or phase.parts.get("all") or Trainability() for name in ("llm", "tower")}
    connector = phase.parts.get("connector") or phase.parts.get("all") or Trainability()
    bridge = connector_parameters(model, tower["hidden_size"], llm["hidden_size"])
    own = _part(decoder, trains["llm"], llm, _BYTES[model.llm.dtype], gated=True)
    if model.experts is not None:
        own = _with_experts(own, model, llm, frozen=trains["llm"].mode == "frozen")
    return {
        "llm": own,
        "tower": _part(tower_parameters(tower), trains["tower"], tower, _BYTES[model.tower.dtype], gated=False),
        "connector": Part(total=bridge, trained=0 if connector.mode == "frozen" else bridge, bytes=4 * bridge),
    }


def _part(total: int, settings: Trainability, config: Mapping[str, Any], each: int, *, gated: bool) -> Part:
    layers, held = config["num_hidden_layers"], float(total * each)
    trained = {"full": total, "frozen": 0}.get(settings.mode, 0)
    if settings.mode == "unlocked":
        trained = total * max(0, layers - (settings.from_layer or 0)) // layers
    elif settings.adapts:
        trained = _adapters(settings, config, layers - (settings.from_layer or 0), gated=gated)
        held = (0.5 * total if settings.mode == "qlora" else held) + 4 * trained
    return Part(total=total, trained=trained, bytes=held, width=config["hidden_size"], layers=layers)


def _adapters(settings: Trainability, config: Mapping[str, Any], layers: int, *, gated: bool) -> int:
    """Return the parameters of adapters beside every matrix of so many layers."""
    width, inner = config["hidden_size"], config["intermediate_size"]
    head = config.get("head_dim") or width // config["num_attention_heads"]
    groups = (config.get("num_key_value_heads") or config["num_attention_heads"]) * head
    attention = 2 * (width + config["num_attention_heads"] * head) + 2 * (width + groups)
    return int(settings.rank * max(0, layers) * (attention + (3 if gated else 2) * (width + inner)))


def _with_experts(part: Part, model: Model, config: Mapping[str, Any], *, frozen: bool) -> Part:
    """Return a decoder's sizes with its experts; of the rest nothing trains where the study says `experts`."""
    assert model.experts is not None
    each, layers = feed_forward(config), len(model.experts.layers)
    if model.experts.adapters is not None:
        each = model.experts.adapters * 3 * (config["hidden_size"] + config["intermediate_size"])
    router = config["hidden_size"] * model.experts.hidden
    copies = len(model.experts.experts) - (0 if model.experts.adapters is not None else 1)
    added = layers * (copies * each + router)
    mixtures = layers * (len(model.experts.experts) * each + router)
    trained = part.trained + added if model.experts.train == "all" else mixtures
    scale = part.bytes / part.total
    return Part(
        total=part.total + added,
        trained=0 if frozen else trained,
        bytes=part.bytes + scale * added,
        width=part.width,
        layers=part.layers,
    )


def memory(model: Model, data: Data, phase: Phase) -> Memory | None:
    """Return what a phase holds on each device; None where an architecture is not known.

    Every device holds the whole model (`ablab.training.distribution`). Weights, gradients and the optimiser's moments
    have the type that the weights are held in; a lower precision of the step keeps copies of fp32 weights that train.
    Activations are those of the micro-batch (1 where the study names none: the least there can be).
    """
    parts = parts_of(model, phase)
    if parts is None:
        return None
    sizes = {name: _width(model, name, part) for name, part in parts.items()}
    items: dict[str, float] = {"weights": sum(part.bytes for part in parts.values())}
    items["gradients"] = sum(part.trained * sizes[name] for name, part in parts.items())
    moments = {"adamw": 2, "sgd": int(phase.optimizer.momentum > 0)}[phase.optimizer.name]
    items["optimiser"] = moments * items["gradients"]
    if phase.precision in ("auto", "bf16", "fp16"):
        items["copies in lower precision"] = sum(2 * p.trained for name, p in parts.items() if sizes[name] == 4)
    items["activations"] = _activations(model, data, phase, parts)
    return Memory(items={name: round(value) for name, value in items.items() if value})


def _width(model: Model, name: str, part: Part) -> int:
    """Return the bytes of a number that trains; adapters and connectors are fp32."""
    if name == "connector" or part.trained < part.total // 8:
        return 4
    return _BYTES[model.llm.dtype if name == "llm" else model.tower.dtype]


def _activations(model: Model, data: Data, phase: Phase, parts: Mapping[str, Part]) -> float:
    llm, tower = architecture(model.llm, DECODERS), architecture(model.tower, TOWERS)
    assert llm is not None and tower is not None
    rows = phase.micro_batch or 1
    pictures = data.tiles + (data.tiles > 1)
    seen = rows * pictures * (patches(tower) + 1)
    logits = 2 * 4 * _LOGITS * int(llm["vocab_size"])
    total = _kept(parts["llm"], rows * data.max_length, phase) + logits
    if parts["tower"].trained:
        return total + _kept(parts["tower"], seen, phase)
    return total + _KEPT * seen * parts["tower"].width


def _kept(part: Part, tokens: int, phase: Phase) -> float:
    """Return what the backward pass of a part's layers keeps: all of each layer, or its input and one layer's all."""
    if phase.gradient_checkpointing:
        return tokens * part.width * (2 * part.layers + _KEPT)
    return tokens * part.width * _KEPT * part.layers


def checkpoint_bytes(model: Model, phase: Phase) -> int | None:
    """Return the bytes of one checkpoint: what trained, with the optimiser's moments; frozen weights are named."""
    parts = parts_of(model, phase)
    if parts is None:
        return None
    moments = 2 if phase.optimizer.name == "adamw" else 1
    return sum(part.trained * _width(model, name, part) * (1 + moments) for name, part in parts.items())


def decoder_bytes(model: Model, dtype: str | None) -> int | None:
    """Return the bytes of a whole decoder, as a merge leaves it."""
    config = architecture(model.llm, DECODERS)
    count = None if config is None else decoder_parameters(config)
    return None if count is None else count * _BYTES[dtype or model.llm.dtype]
