"""Facts about a model that only building it can tell: what trains, what is frozen, and what moved."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ablab.contract.result import Evaluation, Table
from ablab.contract.training import ParameterGroup
from ablab.training.optimizer import first_match


def parameter_facts(model: nn.Module, rules: Sequence[ParameterGroup] = ()) -> dict[str, Any]:
    """Return counts of parameters, tied ones once: in all, by top-level part, and by the pattern that governs them.

    Keys: parameters.total, parameters.trained, parameters.frozen, parameters.parts, parameters.groups; a part or
    group is {total, trained, frozen}.
    """
    parts: dict[str, dict[str, int]] = {}
    groups: dict[str, dict[str, int]] = {}
    whole = _empty()
    for name, parameter in model.named_parameters():
        rule = first_match(name, rules)
        _count(whole, parameter)
        _count(parts.setdefault(name.partition(".")[0], _empty()), parameter)
        if rules:
            _count(groups.setdefault("(no pattern)" if rule is None else rule.pattern, _empty()), parameter)
    facts: dict[str, Any] = {f"parameters.{key}": value for key, value in whole.items()}
    facts["parameters.parts"] = parts
    if rules:
        facts["parameters.groups"] = groups
    return facts


def part_evaluation(facts: Mapping[str, Any]) -> tuple[Evaluation, ...]:
    """Return the table of trained and frozen parameters of each part, where the facts have one (parameters.table)."""
    rows = facts.get("parameters.table")
    if not rows:
        return ()
    columns = ("part", "mode", "layers", "learning rate", "trained", "frozen", "total", "matrices with adapters")
    fields = ("part", "mode", "layers", "learning_rate", "trained", "frozen", "total", "adapted")
    table = Table(name="parts", columns=columns, rows=tuple(tuple(row[field] for field in fields) for row in rows))
    return (Evaluation(name="parts", tables=(table,)),)


def _empty() -> dict[str, int]:
    return {"total": 0, "trained": 0, "frozen": 0}


def _count(into: dict[str, int], parameter: Tensor) -> None:
    into["total"] += parameter.numel()
    into["trained" if parameter.requires_grad else "frozen"] += parameter.numel()


def snapshot(model: nn.Module) -> dict[str, Tensor]:
    """Return copies of all parameters on the CPU."""
    return {name: parameter.detach().to("cpu", copy=True) for name, parameter in model.named_parameters()}


def movement(before: Mapping[str, Tensor], model: nn.Module, rules: Sequence[ParameterGroup] = ()) -> dict[str, Any]:
    """Return what changed since `before`, by top-level part and by pattern.

    Keys: moved.parts and moved.groups {name: {trained, frozen}}, each the share of parameter tensors that changed
    (None where there is none); moved.still, trained tensors that did not change; moved.frozen, frozen ones that did.
    """
    changed = {
        name: not torch.equal(before[name], parameter.detach().cpu()) for name, parameter in model.named_parameters()
    }
    trains = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
    facts: dict[str, Any] = {
        "moved.parts": _shares(changed, trains, {name: name.partition(".")[0] for name in changed}),
        "moved.still": [name for name in changed if trains[name] and not changed[name]],
        "moved.frozen": [name for name in changed if not trains[name] and changed[name]],
    }
    if rules:
        matched = {name: first_match(name, rules) for name in changed}
        labels = {name: "(no pattern)" if rule is None else rule.pattern for name, rule in matched.items()}
        facts["moved.groups"] = _shares(changed, trains, labels)
    return facts


class FirstSteps:
    """Watches the first updates of a run: whether what trains gets a gradient, and whether what is frozen stays.

    Two, since an adapter's first matrix has none until its second has moved from zero; a step at a rate of zero, as a
    warm-up begins with, moves nothing and does not count. Nothing is copied: a gradient that is not zero moves its
    parameter, and a tensor's version counts its changes in place.

    Args:
        model: before the first update.
    """

    STEPS = 2

    def __init__(self, model: nn.Module) -> None:
        parameters = dict(model.named_parameters())
        self._still = {name: each for name, each in parameters.items() if each.requires_grad}
        self._frozen = {name: (each, each._version) for name, each in parameters.items() if not each.requires_grad}
        self._seen = 0

    def look(self, *, rate: float) -> None:
        """Look at the gradients of a step at a learning rate; called before the update."""
        self._seen += rate > 0
        self._still = {
            name: each for name, each in self._still.items() if each.grad is None or not bool(each.grad.any())
        }

    @property
    def done(self) -> bool:
        """Whether enough steps were seen."""
        return self._seen >= self.STEPS

    def facts(self) -> dict[str, Any]:
        """Return moved.still and moved.frozen, as `movement` does."""
        moved = [name for name, (each, version) in self._frozen.items() if each._version != version]
        return {"moved.still": list(self._still), "moved.frozen": moved}


def _shares(
    changed: Mapping[str, bool], trains: Mapping[str, bool], labels: Mapping[str, str]
) -> dict[str, dict[str, float | None]]:
    shares: dict[str, dict[str, float | None]] = {}
    for label in dict.fromkeys(labels.values()):
        own = [name for name in changed if labels[name] == label]
        shares[label] = {
            key: _mean([changed[name] for name in own if trains[name] is wanted])
            for key, wanted in (("trained", True), ("frozen", False))
        }
    return shares


def _mean(flags: Sequence[bool]) -> float | None:
    return sum(flags) / len(flags) if flags else None
