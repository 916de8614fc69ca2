"""Saving memory after an out-of-memory without changing the experiment.

The effective batch stays: the micro-batch becomes a smaller divisor of it, and accumulation makes up for it. A loss
that couples its samples (in-batch negatives) would change with the micro-batch, so its gradient-cache chunk shrinks
instead. Stages without steps take a smaller evaluation batch, a command the parameters that its study maps.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ablab.contract.command import Command, values_of
from ablab.contract.order import Resources
from ablab.study.schema import Stage


@dataclass(frozen=True, kw_only=True)
class Shrunk:
    """Smaller resources, or None when there is nothing left to save; `says` in words."""

    resources: Resources | None
    says: str


def shrink(stage: Stage, resources: Resources, detail: Mapping[str, Any]) -> Shrunk:
    """Return resources that need less memory.

    Args:
        stage: what ran out of memory.
        resources: what it ran with.
        detail: of the end record; `micro_batch`, `loss_chunk`, `evaluation_batch` say what the worker really took,
            and `phase: validation` that it was not training.
    """
    spec = stage.spec
    if isinstance(stage.parameters, Command):
        return _command(stage, stage.parameters, resources)
    batch = spec.effective_batch(stage.sections, stage.parameters) if spec.effective_batch else None
    if batch is None or detail.get("phase") in {"validation", "evaluation"}:
        return _evaluation(stage, resources, detail)
    share = max(1, batch // resources.world_size)
    if spec.couples is not None and spec.couples(stage.sections, stage.parameters):
        return _loss_chunk(share, resources, detail)
    return _micro_batch(batch, share, resources, detail)


def _command(stage: Stage, parameters: Command, resources: Resources) -> Shrunk:
    """Halve and double the parameters that the study maps, as long as what is to be halved is even."""
    memory = parameters.out_of_memory
    values: dict[str, Any] = {**values_of(stage.sections, parameters), **resources.parameters}
    odd = next((name for name in memory.halve if values[name] % 2), None)
    if not memory.halve:
        says = "the study names no parameters to halve (out_of_memory: {halve: [...], double: [...]})"
        return Shrunk(resources=None, says=says)
    if odd is not None:
        return Shrunk(resources=None, says=f"{odd} is {values[odd]} and cannot be halved; needs more memory")
    changed = {name: values[name] // 2 for name in memory.halve} | {name: values[name] * 2 for name in memory.double}
    told = ", ".join(f"{name} {values[name]} -> {value}" for name, value in changed.items())
    kept = f"; {' x '.join(changed)} kept" if len(memory.halve) == len(memory.double) else ""
    return Shrunk(
        resources=resources.model_copy(update={"parameters": {**resources.parameters, **changed}}),
        says=f"{told}{kept}; bit-exactness with an undisturbed run ends",
    )


def _micro_batch(batch: int, share: int, resources: Resources, detail: Mapping[str, Any]) -> Shrunk:
    now = _number(detail.get("micro_batch")) or resources.micro_batch or share
    smaller = _divisor_up_to(share, now // 2)
    if smaller is None:
        return Shrunk(resources=None, says=f"micro-batch is {now} already; needs a smaller model or more memory")
    accumulation = share // smaller
    return Shrunk(
        resources=resources.model_copy(update={"micro_batch": smaller}),
        says=f"micro-batch {now} -> {smaller}, accumulation {accumulation}, effective batch {batch} kept; "
        "sums are taken in another order from here, so bit-exactness with an undisturbed run ends",
    )


def _loss_chunk(share: int, resources: Resources, detail: Mapping[str, Any]) -> Shrunk:
    now = _number(detail.get("loss_chunk")) or resources.loss_chunk or share
    smaller = _divisor_up_to(share, now // 2)
    if smaller is None:
        return Shrunk(
            resources=None,
            says=f"gradient-cache chunk is {now} already, and the loss couples its samples, so the batch cannot be "
            "split; needs a smaller model or more memory",
        )
    return Shrunk(
        resources=resources.model_copy(update={"loss_chunk": smaller}),
        says=f"gradient-cache chunk {now} -> {smaller}; the batch the loss sees is unchanged",
    )


def _evaluation(stage: Stage, resources: Resources, detail: Mapping[str, Any]) -> Shrunk:
    wanted = _number(detail.get("evaluation_batch")) or resources.evaluation_batch
    now = wanted or _number(getattr(stage.parameters, "batch", None))
    if now == 1:
        return Shrunk(resources=None, says="evaluation batch is 1 already; needs more memory")
    smaller = 1 if now is None else now // 2
    was = "" if now is None else f" {now} ->"
    return Shrunk(
        resources=resources.model_copy(update={"evaluation_batch": smaller}),
        says=f"evaluation batch{was} {smaller}",
    )


def _divisor_up_to(number: int, limit: int) -> int | None:
    """Return the largest divisor of `number` that is at most `limit`; None when limit is below 1."""
    return next((size for size in range(limit, 0, -1) if number % size == 0), None)


def _number(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None
