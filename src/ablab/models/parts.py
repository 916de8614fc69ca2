"""Which parts of a model train and how: wholly, not at all, from a layer on, or through adapters.

A part is a sub-module by its dotted name (llm, tower, connector); `all` is the whole model. Rates of parts become rules
of the optimiser in `ablab.contract.models.part_groups`. That what should move moves, and what should not does not, is
checked after the first steps by `ablab.training.facts`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from torch import nn

from ablab.contract.failure import ConfigError
from ablab.contract.training import Trainability
from ablab.models.adapters import add_lora, merge_adapters
from ablab.models.layers import layers_of, nearest_names
from ablab.models.source import mark_overwritten
from ablab.models.vocabulary import merge_rows, train_new_rows

#: The part that is the whole model.
ALL = "all"


@dataclass(frozen=True, kw_only=True, slots=True)
class PartRow:
    """What one part holds, in parameters (tied ones once)."""

    part: str
    mode: str
    total: int
    trained: int
    frozen: int
    learning_rate: float | None = None
    adapted: int = 0
    layers: str = ""


def part_of(model: nn.Module, name: str) -> nn.Module:
    """Return the part of a model called `name`.

    Raises:
        ConfigError: it has no such part; the nearest names are told.
    """
    if name == ALL:
        return model
    try:
        return model.get_submodule(name)
    except AttributeError:
        names = [child for child, _ in model.named_children()]
        near = nearest_names(name, [child for child, _ in model.named_modules() if child.count(".") < 2], count=3)
        raise ConfigError(
            f"parts.{name}: {type(model).__name__} has no part {name!r}; it has {', '.join(names)}; nearest: {near}",
            nearest=near,
        ) from None


def apply_trainability(model: nn.Module, parts: Mapping[str, Trainability], *, seed: int = 0) -> list[PartRow]:
    """Freeze, unlock and adapt the parts of a model, in place, and return what each then holds.

    Parts are taken in the order given, so a part inside another comes after it. What no part names is left as it is.
    Rows of tokens that are new to the model (`ablab.models.vocabulary`) train even where its embedding is frozen.

    Args:
        model: the model, before any adapters.
        parts: settings by part name.
        seed: draws first weights of adapters.

    Raises:
        ConfigError: no such part, a layer beyond the last, adapter targets that match nothing.
    """
    for name, settings in parts.items():
        module = part_of(model, name)
        if settings.adapts:
            add_lora(
                module,
                rank=settings.rank,
                alpha=settings.scale,
                dropout=settings.dropout,
                targets=settings.targets,
                from_layer=settings.from_layer,
                quantized=settings.mode == "qlora",
                seed=seed,
                part=name,
            )
            _only_adapters(module)
        elif settings.mode == "unlocked":
            assert settings.from_layer is not None
            module.requires_grad_(False)
            _unlock(module, settings.from_layer, name)
        else:
            module.requires_grad_(settings.mode == "full")
    train_new_rows(model)
    _unused_stay_frozen(model)
    return part_table(model, parts)


def remove_adapters(model: nn.Module, parts: Mapping[str, Trainability]) -> None:
    """Merge the adapters of all parts into their matrices; the model has its plain names again."""
    for name, settings in parts.items():
        if settings.adapts:
            prefix = "" if name == ALL else f"{name}."
            mark_overwritten(model, [prefix + changed for changed in merge_adapters(part_of(model, name))])
    mark_overwritten(model, merge_rows(model))


def part_table(model: nn.Module, parts: Mapping[str, Trainability]) -> list[PartRow]:
    """Return one row for each part, and one for what no part names.

    Args:
        model: after `apply_trainability`.
        parts: settings by part name.
    """
    rows, seen = [], set[int]()
    for name, settings in reversed(list(parts.items())):  # a part inside another is counted where it is named
        own = [p for p in part_of(model, name).parameters() if id(p) not in seen]
        seen |= {id(p) for p in own}
        rows.append(
            _row(
                name,
                settings.mode,
                own,
                learning_rate=settings.learning_rate,
                adapted=sum(hasattr(child, "lora_A") for child in part_of(model, name).modules()),
                layers=_layers_text(part_of(model, name), settings, name),
            )
        )
    rows.reverse()
    rest = [p for p in model.parameters() if id(p) not in seen]
    if rest:
        rows.append(_row("(no part)", "full", rest))
    return rows


def _row(
    name: str,
    mode: str,
    parameters: Sequence[nn.Parameter],
    *,
    learning_rate: float | None = None,
    adapted: int = 0,
    layers: str = "",
) -> PartRow:
    trained = sum(_size(p) for p in parameters if p.requires_grad)
    total = sum(_size(p) for p in parameters)
    return PartRow(
        part=name,
        mode=mode,
        total=total,
        trained=trained,
        frozen=total - trained,
        learning_rate=learning_rate,
        adapted=adapted,
        layers=layers,
    )


def _size(parameter: nn.Parameter) -> int:
    """Return the numbers a parameter stands for: a 4-bit one packs two into a byte."""
    state = getattr(parameter, "quant_state", None)
    return parameter.numel() if state is None else int(state.shape.numel())


def _layers_text(module: nn.Module, settings: Trainability, name: str) -> str:
    if settings.from_layer is None:
        return ""
    return f"{settings.from_layer}-{len(layers_of(module, part=name)[1]) - 1}"


def _unlock(module: nn.Module, from_layer: int, name: str) -> None:
    path, layers = layers_of(module, part=name)
    if from_layer >= len(layers):
        raise ConfigError(
            f"parts.{name}.from_layer {from_layer} unlocks nothing: {name}.{path} has layers 0 to {len(layers) - 1}"
        )
    for layer in layers[from_layer:]:
        layer.requires_grad_(True)


def _only_adapters(module: nn.Module) -> None:
    for name, parameter in module.named_parameters():
        parameter.requires_grad_(".lora_" in name or ".trainable_tokens_delta" in name)


def _unused_stay_frozen(module: nn.Module) -> None:
    """Keep frozen what a module holds but never runs (`never_trained`): it would have no gradient."""
    for child in module.modules():
        unused: Callable[[], list[nn.Parameter]] | None = getattr(child, "never_trained", None)
        for parameter in unused() if unused is not None else ():
            parameter.requires_grad_(False)
