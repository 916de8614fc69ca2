"""The optimizer: which parameters train, with what rate and decay, and its state as named tensors.

Leaves the rate over time to `schedule` and the files to `checkpoint`. State is kept by parameter name, so it does not
depend on the order in which a model lists its parameters.
"""

from __future__ import annotations

import difflib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase

import torch
from torch import Tensor, nn

from ablab.contract.failure import ConfigError
from ablab.contract.training import Optimizer, ParameterGroup


def first_match(name: str, rules: Sequence[ParameterGroup]) -> ParameterGroup | None:
    """Return the first rule whose pattern matches a parameter name."""
    return next((rule for rule in rules if fnmatchcase(name, rule.pattern)), None)


def check_patterns(names: Sequence[str], rules: Sequence[ParameterGroup]) -> None:
    """Raise ConfigError for a pattern that matches no parameter, with the nearest names."""
    for index, rule in enumerate(rules):
        if any(fnmatchcase(name, rule.pattern) for name in names):
            continue
        near = difflib.get_close_matches(rule.pattern, names, n=3, cutoff=0.3) or list(names[:3])
        raise ConfigError(
            f"optimizer.groups[{index}].pattern {rule.pattern!r} matches none of {len(names)} parameters; "
            f"nearest names: {', '.join(near)}",
            pattern=rule.pattern,
            nearest=near,
        )


def freeze(model: nn.Module, rules: Sequence[ParameterGroup]) -> None:
    """Stop the gradient of every parameter whose rule says `frozen`, after checking all patterns."""
    named = dict(model.named_parameters())
    check_patterns(list(named), rules)
    for name, parameter in named.items():
        rule = first_match(name, rules)
        if rule is not None and rule.frozen:
            parameter.requires_grad_(False)


def trained_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """Return the parameters with gradient by name, tied ones once; ConfigError when there are none."""
    named = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    if not named:
        raise ConfigError("nothing to train: every parameter of the model is frozen")
    return named


def build_optimizer(
    parameters: Mapping[str, nn.Parameter], settings: Optimizer, *, device: torch.device
) -> torch.optim.Optimizer:
    """Return the optimizer over `parameters`, grouped by (rate multiplier, weight decay).

    Each group carries `scale`, its multiplier of the base rate; `set_rate` applies it. The fused kernels are used on
    CPU and CUDA.
    """
    grouped: dict[tuple[float, float], list[nn.Parameter]] = defaultdict(list)
    for name, parameter in parameters.items():
        grouped[_group_of(name, parameter, settings)].append(parameter)
    groups = [
        {"params": members, "scale": scale, "lr": settings.learning_rate * scale, "weight_decay": decay}
        for (scale, decay), members in grouped.items()
    ]
    fused = device.type in {"cpu", "cuda"} and all(p.is_floating_point() for p in parameters.values())
    if settings.name == "sgd":
        return torch.optim.SGD(groups, lr=settings.learning_rate, momentum=settings.momentum, fused=fused)
    return torch.optim.AdamW(groups, lr=settings.learning_rate, betas=settings.betas, eps=settings.epsilon, fused=fused)


def _group_of(name: str, parameter: nn.Parameter, settings: Optimizer) -> tuple[float, float]:
    rule = first_match(name, settings.groups)
    scale = 1.0 if rule is None or rule.learning_rate is None else rule.learning_rate
    if rule is not None and rule.weight_decay is not None:
        return scale, rule.weight_decay
    decays = settings.decay == "all" or parameter.ndim >= 2
    return scale, settings.weight_decay if decays else 0.0


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Set the base learning rate; every group multiplies it by its own scale."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group["scale"]


def state_tensors(optimizer: torch.optim.Optimizer, parameters: Mapping[str, nn.Parameter]) -> dict[str, Tensor]:
    """Return the optimizer's state as tensors named `<parameter>::<entry>` (exp_avg, exp_avg_sq, step, ...)."""
    found: dict[str, Tensor] = {}
    for name, parameter in parameters.items():
        for entry, value in optimizer.state.get(parameter, {}).items():
            if value is not None:
                found[f"{name}::{entry}"] = value if isinstance(value, Tensor) else torch.tensor(value)
    return found


def load_state_tensors(
    optimizer: torch.optim.Optimizer, parameters: Mapping[str, nn.Parameter], tensors: Mapping[str, Tensor]
) -> None:
    """Put back what `state_tensors` gave; tensors are copied, so that their memory is aligned as if never saved."""
    optimizer.state.clear()
    for key, tensor in tensors.items():
        name, _, entry = key.rpartition("::")
        if name not in parameters:
            raise ConfigError(f"the checkpoint holds optimizer state of {name!r}, which this model does not train")
        parameter = parameters[name]
        optimizer.state[parameter][entry] = tensor.to(parameter.device, copy=True)
