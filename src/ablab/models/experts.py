"""Language experts: chosen feed-forward layers of a decoder become mixtures (`ablab.models.mixture`).

Puts them into any decoder of transformers, tells them the language of each sample, fills experts from other models'
weights, says what they are used for, and loads a model that was saved with them. The model's configuration records
them. What of a model trains otherwise is `ablab.models.parts`' business.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ablab.contract.experts import ExpertSettings
from ablab.contract.failure import ConfigError, DataError
from ablab.contract.result import Table
from ablab.contract.seeds import stream_seed
from ablab.models.layers import is_linear, layers_of
from ablab.models.low_rank import factor
from ablab.models.mixture import ExpertFeedForward, LowRankExpert, Route, is_turned, key_of, matrices
from ablab.models.source import mark_moved, mark_overwritten

#: Entry of the configuration under which the settings are kept.
ENTRY = "ablab_experts"
#: Words of module names that are attention, and not a feed-forward layer.
_ATTENTION = ("attn", "attention")


def add_experts(model: Any, settings: ExpertSettings, *, seed: int = 0, part: str = "llm") -> Route:
    """Turn chosen feed-forward layers of a decoder into experts that equal them, in place; its configuration says so.

    Args:
        model: decoder of transformers.
        settings: of the experts.
        seed: draws the routers, each from a stream of its own layer.
        part: what the model is called in messages.

    Returns:
        What batches tell the routers through; `set_languages` does.

    Raises:
        ConfigError: a layer beyond the last, or layers without a feed-forward module.
    """
    path, layers = layers_of(model, part=part)
    beyond = settings.beyond(len(layers))
    if beyond:
        raise ConfigError(
            f"{part}: experts in layer {beyond[0]}, and the last layer is {len(layers) - 1} (layers count from 0)",
            layers=len(layers),
        )
    width, route = int(model.config.get_text_config().hidden_size), Route()
    for index in settings.layers:
        name = feed_forward(layers[index], part=f"{part}.{path}.{index}")
        generator = torch.Generator().manual_seed(stream_seed(seed, f"initialisation/experts/{index}"))
        layer = getattr(layers[index], name)
        mixture = ExpertFeedForward(layer, width=width, settings=settings, route=route, generator=generator)
        setattr(layers[index], name, mixture.train(layer.training))
        place = f"{path}.{index}.{name}"
        inside = [f"{place}.experts.{i}" for i in range(len(settings.experts))] if mixture.layer is None else []
        mark_moved(model, place, inside or [f"{place}.layer"])
    setattr(model.config, ENTRY, settings.model_dump(mode="json"))
    return route


def restore_experts(model: Any, folder: Path) -> bool:
    """Add the experts that a model's configuration records and load all its weights from a folder, in place.

    A model whose configuration records none is left alone, and False returned. transformers alone would load such a
    folder with feed-forward layers drawn at random.

    Raises:
        DataError: weights that are missing or do not fit.
    """
    recorded = getattr(model.config, ENTRY, None)
    if not isinstance(recorded, Mapping):
        return False
    from safetensors.torch import load_file

    add_experts(model, ExpertSettings.model_validate(dict(recorded)))
    missing: set[str] = set(model.state_dict())
    for file in sorted(folder.glob("*.safetensors")):
        found = model.load_state_dict(load_file(file), strict=False)
        missing &= set(found.missing_keys)
        if found.unexpected_keys:
            raise DataError(f"{file}: {found.unexpected_keys[0]} is not the model's", file=str(file))
    model.tie_weights()
    missing -= set(getattr(model, "all_tied_weights_keys", None) or getattr(model, "_tied_weights_keys", None) or ())
    if missing:
        raise DataError(f"{folder}: {len(missing)} weights are missing ({min(missing)}, ...)", file=str(folder))
    return True


def feed_forward(layer: nn.Module, *, part: str) -> str:
    """Return the name of a layer's feed-forward module: the one child with matrices that is no attention.

    Raises:
        ConfigError: there is none, or more than one.
    """
    found = [
        name
        for name, child in layer.named_children()
        if not any(word in f"{name} {type(child).__name__}".lower() for word in _ATTENTION)
        and any(is_linear(module) for module in child.modules())
    ]
    if len(found) != 1 or is_linear(getattr(layer, found[0])):
        names = ", ".join(found) or "none"
        raise ConfigError(f"{part} ({type(layer).__name__}): expected one feed-forward module, found {names}")
    return found[0]


def expert_layers(model: nn.Module) -> Iterator[tuple[str, ExpertFeedForward]]:
    """Yield the dotted name and module of every layer of experts."""
    for name, module in model.named_modules():
        if isinstance(module, ExpertFeedForward):
            yield name, module


def set_languages(model: nn.Module, languages: Tensor | None, *, mask: Tensor | None = None) -> None:
    """Tell the routers of a model the language of each sample (B,), or of each token (B, T), until told otherwise.

    Args:
        model: with experts, or without any.
        languages: int64, in the order of the settings' languages; None tells nothing.
        mask: tokens that count in the losses and in the use of experts, bool (B, T); None counts all.
    """
    for _, layer in expert_layers(model):
        layer.route.languages, layer.route.mask = languages, None if mask is None else mask.bool()


def auxiliary_losses(model: nn.Module) -> dict[str, Tensor]:
    """Return the weighted auxiliary losses of the last call by name, each a mean over layers and tokens, with graph."""
    found: dict[str, list[Tensor]] = {}
    for _, layer in expert_layers(model):
        for name, value in layer.auxiliary.items():
            found.setdefault(f"experts-{name}", []).append(value)
    return {name: torch.stack(values).mean() for name, values in found.items()}


def auxiliary_gradient(model: nn.Module, loss: Tensor) -> float | None:
    """Return the norm of the gradient that a loss has in the routers by way of the auxiliary losses.

    0 where they are not in the loss, or train nothing; None where no auxiliary loss is asked for.

    Args:
        model: with experts, after a call in training mode.
        loss: what is trained on, made of that call.
    """
    layers = [layer for _, layer in expert_layers(model)]
    if not any(layer.settings.balance or layer.settings.z for layer in layers):
        return None
    terms = [value for layer in layers for value in layer.auxiliary.values() if value.requires_grad]
    weights = [p for layer in layers for p in layer.router.parameters() if p.requires_grad]
    if not terms or not weights or not loss.requires_grad:
        return 0.0
    # How much of each term is in the loss: nothing where it was computed and never added.
    shares = torch.autograd.grad(loss, terms, allow_unused=True, retain_graph=True)
    held = [share.detach() * term for share, term in zip(shares, terms, strict=True) if share is not None]
    if not held:
        return 0.0
    gradients = torch.autograd.grad(torch.stack(held).sum(), weights, allow_unused=True, retain_graph=True)
    return float(torch.stack([g.norm() for g in gradients if g is not None]).norm())


def train_experts_only(model: nn.Module) -> None:
    """Freeze everything of a decoder but its experts and routers, in place."""
    model.requires_grad_(False)
    for _, layer in expert_layers(model):
        layer.router.requires_grad_(True)
        layer.experts.requires_grad_(True)


@torch.no_grad()
def fill_expert(model: nn.Module, expert: str, weights: Mapping[str, Tensor]) -> dict[str, float]:
    """Give an expert of every layer the feed-forward weights of another model of the same shape, in place.

    A low-rank expert takes the best approximation of the difference to the shared layer.

    Args:
        model: with experts.
        expert: language, or shared.
        weights: tensors by their names in a model without experts.

    Returns:
        By layer, the share of the difference's norm that an expert cannot hold; 0 for whole experts.

    Raises:
        ConfigError: no such expert.
        DataError: a tensor that is missing or has another shape.
    """
    lost = {}
    for name, layer in expert_layers(model):
        names = layer.settings.experts
        if expert not in names:
            raise ConfigError(f"there is no expert {expert!r}; there are {', '.join(names)}")
        place = names.index(expert)
        target = layer.experts[place]
        mark_overwritten(model, (f"{name}.experts.{place}.{own}" for own in target.state_dict()))
        if layer.layer is None:
            for own, parameter in target.state_dict().items():
                parameter.copy_(_weight(weights, f"{name}.{own}", parameter))
            lost[name] = 0.0
        else:
            assert isinstance(target, LowRankExpert)
            lost[name] = _approximate(layer.layer, target, name, weights)
    return lost


def _approximate(layer: nn.Module, expert: LowRankExpert, where: str, weights: Mapping[str, Tensor]) -> float:
    worst = 0.0
    for name, matrix in matrices(layer).items():
        wanted = _weight(weights, f"{where}.{name}.weight", matrix.weight).to(matrix.weight.device)
        difference = (
            (wanted.float() - matrix.weight.float()).t() if is_turned(matrix) else wanted.float() - matrix.weight
        )
        down, up = expert.down[key_of(name)], expert.up[key_of(name)]
        if matrix.bias is not None:
            wanted_bias = _weight(weights, f"{where}.{name}.bias", matrix.bias).to(matrix.bias.device)
            expert.bias[key_of(name)].copy_(wanted_bias - matrix.bias)
        if not bool(difference.any()):
            up.zero_()
            continue
        found = factor(difference.float(), len(down), seed=0)
        down.copy_(found.right)
        up.copy_(found.left)
        worst = max(worst, found.error)
    return worst


def _weight(weights: Mapping[str, Tensor], name: str, like: Tensor) -> Tensor:
    if name not in weights:
        raise DataError(f"{name} is not among the expert's weights", tensor=name)
    if weights[name].shape != like.shape:
        raise DataError(f"{name} has shape {tuple(weights[name].shape)}, the expert {tuple(like.shape)}", tensor=name)
    return weights[name]


def note_use(model: nn.Module, noting: bool = True) -> None:
    """Begin to add up which experts are used, from nothing, or end it."""
    for _, layer in expert_layers(model):
        layer.route.noting = noting
        if noting:
            layer.used.zero_()


def use_of_experts(model: nn.Module) -> Table:
    """Return the mean weight of each expert by layer and language, as noted since `note_use`; rows sum to 1."""
    rows: list[tuple[Any, ...]] = []
    experts: Sequence[str] = ()
    for name, layer in expert_layers(model):
        experts = layer.settings.experts
        for language, weights in zip((*layer.settings.languages, "not told"), layer.used, strict=True):
            if float(weights.sum()):
                rows.append((name, language, *(weights / weights.sum()).tolist()))
    return Table(name="use of experts", columns=("layer", "language", *experts), rows=tuple(rows))
