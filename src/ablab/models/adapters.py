"""Low-rank adapters (LoRA, arXiv 2106.09685) through peft: where they stand, their files, and merging them away.

Targets are resolved on the model at hand, so that every architecture's own names work (q_proj for Llama, q and wi_0
for T5, fc1 for BART, wqkv for InternLM2), and a name that matches nothing is an error: peft itself passes over names
it does not find when another one is there.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ablab.contract.failure import ConfigError, DataError
from ablab.models.initialization import named_generator
from ablab.models.layers import is_linear, layer_lists, layers_of, nearest_names
from ablab.models.quantization import dequantized, is_quantized, quantize

if TYPE_CHECKING:
    from peft import LoraConfig

#: peft's name of the one adapter of a module.
NAME = "default"

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"

#: Words for groups of matrices, by the module they stand in.
_ATTENTION = ("attn", "attention")


def add_lora(
    module: nn.Module,
    *,
    rank: int,
    alpha: float,
    dropout: float = 0.0,
    targets: Sequence[str] | None = None,
    from_layer: int | None = None,
    quantized: bool = False,
    tokens: Sequence[int] = (),
    seed: int = 0,
    part: str = "model",
) -> list[str]:
    """Put adapters beside matrices of a module, in place; everything else of it freezes.

    Args:
        module: a model of transformers, or any module with layers.
        rank: rank of the adapters.
        alpha: their scale is alpha / rank.
        dropout: dropout before them.
        targets: names or the words attention and feedforward; None is every matrix of the layers.
        from_layer: first layer that gets adapters.
        quantized: hold the matrices of the layers in 4 bits.
        tokens: rows of the token embedding that train beside the adapters (special tokens added before).
        seed: draws the adapters' first weights, each from a stream of its own name.
        part: what the module is called in messages.

    Returns:
        Dotted names of the matrices that have adapters.

    Raises:
        ConfigError: a target that matches nothing, or a layer that does not exist.
    """
    from peft import LoraConfig, inject_adapter_in_model

    if quantized:
        quantize(module)
    names = resolve_targets(module, targets, from_layer=from_layer, part=part)
    config = LoraConfig(
        r=rank,
        lora_alpha=int(alpha) if float(alpha).is_integer() else alpha,  # type: ignore[arg-type]
        lora_dropout=dropout,
        target_modules=_short(module, names),
        trainable_token_indices=_tokens(module, tokens),
    )
    base = getattr(module, "name_or_path", None)
    config.base_model_name_or_path = base if isinstance(base, str) and base else None
    inject_adapter_in_model(config, module, adapter_name=NAME)
    module.ablab_adapter = config  # type: ignore[assignment]
    _initialize(module, seed)
    return names


def resolve_targets(
    module: nn.Module, targets: Sequence[str] | None, *, from_layer: int | None = None, part: str = "model"
) -> list[str]:
    """Return the dotted names of the matrices that targets mean, in the module's order.

    Raises:
        ConfigError: a target that matches none of the matrices, a layer beyond the last, or a module without layers.
    """
    matrices = [name for name, child in module.named_modules() if is_linear(child)]
    inside = [name for name in matrices if any(name.startswith(f"{path}.") for path in layer_lists(module))]
    if from_layer is not None:
        path, layers = layers_of(module, part=part)
        _check_layer(from_layer, len(layers), part)
        inside = [name for name in inside if int(name.removeprefix(f"{path}.").partition(".")[0]) >= from_layer]
    if not inside:
        raise ConfigError(f"{part} ({type(module).__name__}) has no layers with matrices for adapters")
    if targets is None:
        return inside
    # Outside the layers (the head, say) a matrix is meant only by its own name.
    outside = [name for name in matrices if name not in set(inside)] if from_layer is None else []
    wanted: set[str] = set()
    for target in targets:
        found = _matching(target, inside) or [name for name in outside if _is_called(name, target)]
        if not found:
            known = [name.rpartition(".")[2] for name in inside]
            raise ConfigError(
                f"adapter target {target!r} matches no matrix of {part} ({type(module).__name__}); its matrices: "
                f"{', '.join(dict.fromkeys(known))}; nearest: {nearest_names(target, known, count=2)}; or the words "
                "attention and feedforward",
                target=target,
            )
        wanted.update(found)
    return [name for name in matrices if name in wanted]


def _matching(target: str, names: Iterable[str]) -> list[str]:
    names = list(names)
    if target in {"attention", "feedforward"} and not any(_is_called(name, target) for name in names):
        return [name for name in names if _is_attention(name) is (target == "attention")]
    return [name for name in names if _is_called(name, target)]


def _is_called(name: str, target: str) -> bool:
    return name == target or name.endswith(f".{target}")


def _is_attention(name: str) -> bool:
    """Whether a matrix belongs to attention, by the modules around it (T5 calls them SelfAttention)."""
    return any(word in step.lower() for step in name.split(".")[:-1] for word in _ATTENTION)


def _check_layer(layer: int, count: int, part: str) -> None:
    if layer >= count:
        raise ConfigError(f"from_layer {layer} of {part} is beyond its last layer, {count - 1} (layers count from 0)")


def _short(module: nn.Module, names: Sequence[str]) -> list[str]:
    """Return the targets by their last names where that means the same matrices, else in full."""
    last = list(dict.fromkeys(name.rpartition(".")[2] for name in names))
    meant = [name for name, child in module.named_modules() if is_linear(child) and name.rpartition(".")[2] in last]
    return last if set(meant) == set(names) else list(names)


def _tokens(module: nn.Module, tokens: Sequence[int]) -> dict[str, list[int]] | None:
    """Return peft's setting for the rows of the embedding that train."""
    if not tokens:
        return None
    get: Callable[[], nn.Module] | None = getattr(module, "get_input_embeddings", None)
    embedding = get() if get is not None else None
    name = next((name for name, child in module.named_modules() if child is embedding), None)
    if name is None:
        raise ConfigError(f"{type(module).__name__} names no token embedding whose rows could train")
    assert isinstance(embedding, nn.Embedding)
    if max(tokens) >= embedding.num_embeddings:
        raise ConfigError(
            f"token {max(tokens)} is beyond the embedding's {embedding.num_embeddings} rows; resize it before adapters"
        )
    return {name.rpartition(".")[2]: sorted(tokens)}


@torch.no_grad()
def _initialize(module: nn.Module, seed: int) -> None:
    """Draw every A anew, each from the stream of its name, from peft's own distribution; B stays zero."""
    for name, parameter in module.named_parameters():
        if ".lora_A." in name:
            bound = 1 / math.sqrt(parameter.size(1))
            drawn = torch.rand(parameter.shape, generator=named_generator(seed, name)) * 2 * bound - bound
            parameter.copy_(drawn)


def has_adapters(module: nn.Module) -> bool:
    """Whether `add_lora` put adapters into the module."""
    return getattr(module, "ablab_adapter", None) is not None


def adapter_state(module: nn.Module) -> dict[str, Tensor]:
    """Return the adapters' tensors by peft's names, as `PeftModel` reads them."""
    from peft import get_peft_model_state_dict

    state = get_peft_model_state_dict(module, adapter_name=NAME, save_embedding_layers=False)
    return {f"base_model.model.{name}": value.detach().cpu().contiguous() for name, value in state.items()}


def save_adapters(module: nn.Module, folder: Path, *, base: str | None = None) -> None:
    """Write a module's adapters in peft's format: `PeftModel.from_pretrained(model, folder)` reads them.

    Args:
        module: what `add_lora` changed.
        folder: created when missing.
        base: name of the model they belong to, for the file.

    Raises:
        ConfigError: the module has no adapters.
    """
    from safetensors.torch import save_file

    config = _config(module)
    folder.mkdir(parents=True, exist_ok=True)
    if base is not None:
        config.base_model_name_or_path = base
    config.inference_mode = True
    config.save_pretrained(str(folder))
    config.inference_mode = False
    save_file(adapter_state(module), folder / WEIGHTS, metadata={"format": "pt"})


@torch.no_grad()
def load_adapters(module: nn.Module, folder: Path, *, quantized: bool = False) -> None:
    """Add the adapters of a folder in peft's format to a module, in place.

    Raises:
        DataError: no adapters there, or adapters that do not fit the module.
    """
    from peft import PeftConfig, inject_adapter_in_model, set_peft_model_state_dict
    from safetensors.torch import load_file

    if not (folder / CONFIG).is_file() or not (folder / WEIGHTS).is_file():
        raise DataError(f"{folder}: expected {CONFIG} and {WEIGHTS} of peft", file=str(folder))
    if not has_adapters(module):
        if quantized:
            quantize(module)
        config = PeftConfig.from_pretrained(str(folder))
        config.inference_mode = False
        inject_adapter_in_model(config, module, adapter_name=NAME)
        module.ablab_adapter = config
    found = {name.removeprefix("base_model.model."): value for name, value in load_file(folder / WEIGHTS).items()}
    mine = {name.removeprefix("base_model.model.") for name in adapter_state(module)}
    if mine != set(found):
        odd = sorted(mine ^ set(found))
        raise DataError(f"{folder}: the adapters do not fit: {', '.join(odd[:3])} on one side only", file=str(folder))
    set_peft_model_state_dict(module, found, adapter_name=NAME)


@torch.no_grad()
def merge_adapters(module: nn.Module) -> list[str]:
    """Add the adapters into their matrices and take them away, in place; 4-bit matrices become full ones.

    The model computes the same afterwards (in evaluation mode), and has the names it had before `add_lora`.

    Returns:
        Names of the tensors that hold other values now.
    """
    from peft.tuners.tuners_utils import BaseTunerLayer
    from peft.utils.other import AuxiliaryTrainingWrapper

    wrapped = [
        (name, child)
        for name, child in module.named_modules()
        if isinstance(child, BaseTunerLayer | AuxiliaryTrainingWrapper)
    ]
    for name, child in wrapped:
        if any(name.startswith(f"{other}.") for other, _ in wrapped if other != name):
            continue  # inside another one, which replaces it
        parent, _, last = name.rpartition(".")
        setattr(module.get_submodule(parent), last, _merged(child))
    changed = [f"{name}.weight" for name, _ in wrapped]
    for name, child in list(module.named_modules()):
        if is_quantized(child):
            parent, _, last = name.rpartition(".")
            setattr(module.get_submodule(parent), last, _full(child, dequantized(child)))
            changed.append(f"{name}.weight")
    for mark in ("ablab_adapter", "peft_config"):
        if hasattr(module, mark):
            delattr(module, mark)
    if hasattr(module, "is_loaded_in_4bit"):
        del module.is_loaded_in_4bit
    return changed


def _merged(layer: Any) -> nn.Module:
    """Return what replaces a wrapped module."""
    if hasattr(layer, "unload_and_optionally_merge_module"):
        merged: nn.Module = layer.unload_and_optionally_merge_module(merge=True, safe_merge=True, adapter_names=[NAME])
        return merged
    base: nn.Module = layer.get_base_layer()
    if is_quantized(base):
        return _full(base, dequantized(base) + layer.get_delta_weight(NAME).float())
    layer.merge(safe_merge=True, adapter_names=[NAME])
    return base


def _full(layer: Any, weight: Tensor) -> nn.Linear:
    full = nn.Linear(layer.in_features, layer.out_features, bias=layer.bias is not None, device=weight.device)
    full.weight.copy_(weight)
    if layer.bias is not None:
        full.bias.copy_(layer.bias)
    return full


def _config(module: nn.Module) -> LoraConfig:
    if not has_adapters(module):
        raise ConfigError(f"{type(module).__name__} has no adapters")
    return module.ablab_adapter  # type: ignore[return-value]
