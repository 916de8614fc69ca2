"""What is known of an architecture without loading it: positions, precision, attention, names of matrices; no torch.

The family comes from a configuration in the study, from a config.json in a folder or in the hub's local cache, else
from the checkpoint's name. Nothing here asks the network.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ablab.contract.models import ModelReference
from ablab.store.hub import hub_cache


@dataclass(frozen=True, kw_only=True)
class Family:
    """An architecture.

    Args:
        name: transformers' model_type.
        positions: learned or tabulated positions, where the family's checkpoints agree; None means unlimited
            (relative positions) or not known.
        fp16: whether activations stay within fp16 in training.
        flash: whether flash attention exists for it.
        targets: names of matrices that adapters can stand beside.
        encoder_decoder: whether it has an encoder.
    """

    name: str
    positions: int | None = None
    relative: bool = False
    fp16: bool = True
    flash: bool = True
    targets: frozenset[str] = frozenset()
    encoder_decoder: bool = True


_T5 = {"relative": True, "fp16": False, "flash": False}
_ATTENTION = frozenset({"q", "k", "v", "o"})
_BART = frozenset({"q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"})
_LLAMA = frozenset({"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"})

#: T5 of 2019 has one inner matrix; T5 v1.1, mT5 and umT5 are gated and have two.
GATED = _ATTENTION | {"wi_0", "wi_1", "wo"}
PLAIN = _ATTENTION | {"wi", "wo"}

FAMILIES: dict[str, Family] = {
    family.name: family
    for family in (
        Family(name="t5", targets=PLAIN | GATED, **_T5),
        Family(name="mt5", targets=GATED, **_T5),
        Family(name="umt5", targets=GATED, **_T5),
        Family(name="bart", positions=1024, targets=_BART),
        Family(name="mbart", positions=1024, targets=_BART),
        Family(name="llama", targets=_LLAMA, encoder_decoder=False),
        Family(name="mistral", targets=_LLAMA, encoder_decoder=False),
        Family(name="qwen2", targets=_LLAMA, encoder_decoder=False),
        Family(name="qwen3", targets=_LLAMA, encoder_decoder=False),
        Family(name="gemma", targets=_LLAMA, encoder_decoder=False),
    )
}

#: Parts of names by which checkpoints of the hub are known, the longer ones first.
_NAMES = (
    ("mt5", "mt5"), ("umt5", "umt5"), ("mbart", "mbart"), ("kobart", "bart"), ("bart", "bart"), ("t5", "t5"),
    ("smollm", "llama"), ("llama", "llama"), ("solar", "llama"), ("mistral", "mistral"), ("qwen3", "qwen3"),
    ("qwen", "qwen2"),
)  # fmt: skip
#: Checkpoints whose positions are not the family's.
_POSITIONS = {"kobart": 1026}
_LIMITS = ("max_position_embeddings", "n_positions", "max_positions")


#: Words for sizes that hold for every family, and what each family calls them; a family without one leaves it out.
_SIZES: dict[str, dict[str, tuple[str, ...]]] = {
    "t5": {
        "width": ("d_model",), "layers": ("num_layers", "num_decoder_layers"), "heads": ("num_heads",),
        "feedforward": ("d_ff",), "positions": (), "initial_std": ("initializer_factor",),
    },
    "bart": {
        "width": ("d_model",), "layers": ("encoder_layers", "decoder_layers"),
        "heads": ("encoder_attention_heads", "decoder_attention_heads"),
        "feedforward": ("encoder_ffn_dim", "decoder_ffn_dim"), "positions": ("max_position_embeddings",),
        "initial_std": ("init_std",),
    },
    "llama": {
        "width": ("hidden_size",), "layers": ("num_hidden_layers",), "heads": ("num_attention_heads",),
        "feedforward": ("intermediate_size",), "positions": ("max_position_embeddings",),
        "initial_std": ("initializer_range",),
    },
}  # fmt: skip
_LIKE = {"mt5": "t5", "umt5": "t5", "mbart": "bart", "mistral": "llama", "qwen2": "llama", "qwen3": "llama"}


#: Entries of a configuration that mean dropout; attention alone has one in decoders of the Llama kind.
_DROPOUT = {
    "t5": ("dropout_rate",),
    "bart": ("dropout", "attention_dropout", "activation_dropout"),
    "llama": ("attention_dropout",),
}


def dropout_entries(model_type: str | None) -> tuple[str, ...]:
    """Return the entries that mean dropout in a configuration; all there are where the architecture is not known."""
    if model_type is None:
        return tuple(name for names in _DROPOUT.values() for name in names)
    return _DROPOUT.get(_LIKE.get(model_type, model_type), ())


def translated(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a configuration whose sizes (width, layers, ...) have the names that its architecture gives them.

    So arms that differ in architecture only differ in model_type only. Other entries stay as they are.
    """
    name = str(config.get("model_type", ""))
    words = _SIZES.get(_LIKE.get(name, name), {})
    found: dict[str, Any] = {}
    for key, value in config.items():
        found |= dict.fromkeys(words.get(key, (key,)), value)
    if words is _SIZES["t5"] and "d_kv" not in found and {"d_model", "num_heads"} <= found.keys():
        found["d_kv"] = found["d_model"] // found["num_heads"]
    return found


def settings_of(reference: ModelReference, *, study: str = "") -> Mapping[str, Any] | None:
    """Return a checkpoint's configuration where it can be read without a network; None where it cannot."""
    if reference.config is not None:
        return translated(reference.config)
    if reference.name is None:
        return None
    if reference.is_folder:
        base = Path(study).parent if study else Path()
        return _read(base / Path(reference.name).expanduser() / "config.json")
    folder = hub_cache() / f"models--{reference.name.replace('/', '--')}" / "snapshots"
    found = sorted(folder.glob("*/config.json"))
    return _read(found[-1]) if found else None


def _read(path: Path) -> Mapping[str, Any] | None:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return values if isinstance(values, dict) else None


def family_of(reference: ModelReference, *, study: str = "") -> Family | None:
    """Return the family of a checkpoint; None where neither a configuration nor the name tells."""
    settings = settings_of(reference, study=study)
    if settings is not None:
        name = str(settings.get("model_type", ""))
        return FAMILIES.get(name)
    words = (reference.name or "").lower()
    return next((FAMILIES[name] for part, name in _NAMES if part in words), None)


def targets_of(reference: ModelReference, *, study: str = "") -> frozenset[str] | None:
    """Return the names of matrices a checkpoint has; None where that is not known."""
    family = family_of(reference, study=study)
    if family is None:
        return None
    if family.name != "t5":
        return family.targets
    settings = settings_of(reference, study=study)
    kind = None if settings is None else settings.get("feed_forward_proj", "relu")
    return family.targets if kind is None else GATED if str(kind).startswith("gated") else PLAIN


def positions_of(reference: ModelReference, *, study: str = "") -> int | None:
    """Return how many positions a checkpoint has learned; None for relative ones and where it is not known."""
    family = family_of(reference, study=study)
    if family is None or family.relative:
        return None
    settings = settings_of(reference, study=study)
    if settings is not None:
        return next((int(settings[name]) for name in _LIMITS if isinstance(settings.get(name), int)), family.positions)
    words = (reference.name or "").lower()
    return next((limit for part, limit in _POSITIONS.items() if part in words), family.positions)
