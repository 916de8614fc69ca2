"""Memory: what training needs against the devices that the study names.

A task tells it by `DERIVED["memory.forecast"]`, a function of a study and an experiment that returns bytes by stage and
by what holds them (weights, gradients, ...). Where it does not, a probe's parameter counts give the least that can be.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ablab.audit.findings import finding, listed, not_checked
from ablab.audit.view import AuditView, stage_place
from ablab.contract.finding import Finding
from ablab.contract.kinds import trains
from ablab.contract.units import size
from ablab.study.schema import Device, Experiment, Stage

#: Share of a device from which a forecast is too close to it: contexts, buffers and fragments are not forecast.
TIGHT = 0.9
#: Bytes of a trained parameter in fp32: itself, its gradient, Adam's two moments.
_WEIGHT, _TRAINED = 4, 12


def devices(view: AuditView) -> Iterable[Finding]:
    """Errors: a stage that needs more memory than a device has; warnings: one that leaves little."""
    device = view.study.compute.device
    if device is None:
        return
    found: dict[tuple[str, int], tuple[Experiment, Stage, Mapping[str, int], list[str]]] = {}
    unknown: dict[str, None] = {}
    for experiment in view.study.experiments.values():
        derived: Mapping[str, Any] = view.derived(experiment, "memory.forecast") or {}
        for stage in experiment.stages:
            if not trains(stage.spec) or experiment.planned:
                continue
            items = derived.get(stage.name) or _least(view, experiment, stage)
            if items is None:
                unknown[experiment.name] = None
                continue
            same = found.setdefault((stage.name, sum(items.values())), (experiment, stage, items, []))
            same[3].append(experiment.name)
    for experiment, stage, items, names in found.values():
        if sum(items.values()) > TIGHT * device.memory:
            yield _too_much(view, device, experiment, stage, items, names)
    if unknown:
        message = f"how much memory training of {listed(list(unknown))} takes on a {device.name}"
        yield not_checked(view, "memory-exceeds-device", "compute.device", message, subjects=tuple(unknown))


def _least(view: AuditView, experiment: Experiment, stage: Stage) -> Mapping[str, int] | None:
    """Return weights, gradients and moments by the counts of a result or probe, in fp32; activations come on top."""
    facts = view.facts(experiment.name, stage=stage.name) or {}
    total, trained = facts.get("parameters.total"), facts.get("parameters.trained")
    if not isinstance(total, int) or not isinstance(trained, int):
        return None
    return {"weights": _WEIGHT * total, "gradients and moments": _TRAINED * trained}


def _too_much(
    view: AuditView, device: Device, experiment: Experiment, stage: Stage, items: Mapping[str, int], names: list[str]
) -> Finding:
    need = sum(items.values())
    over = need > device.memory
    told = ", ".join(f"{name} {size(count)}" for name, count in items.items())
    return finding(
        view,
        "memory-exceeds-device" if over else "memory-tight",
        "error" if over else "warning",
        stage_place(experiment, stage),
        f"{stage.name} of {listed(names)} needs about {size(need)} on each device ({told}), and a {device.name} has "
        f"{size(device.memory)}",
        remedy="train adapters (mode: lora), fewer parts or a smaller micro_batch, or name devices that hold it",
        evidence={"bytes": need, "device": device.memory, **items},
        subjects=tuple(names),
    )


CHECKS = (devices,)
