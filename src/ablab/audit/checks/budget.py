"""Training budgets: an arm that trained longer, on more samples or through more stages wins for that reason alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ablab.audit.findings import finding, place, shown
from ablab.audit.view import AuditView
from ablab.contract.finding import Finding
from ablab.study.differences import covers
from ablab.study.schema import Comparison, Experiment

#: Relative difference of measured tokens or samples that is no difference.
TOLERANCE = 0.01


def planned_budget(view: AuditView, experiment: Experiment) -> dict[str, Any]:
    """Return what an arm is meant to train: stages, steps, samples and epochs over all stages it goes through."""
    stages = view.training(experiment)
    budget: dict[str, Any] = {"training stages": len(stages)}
    if all(stage.steps is not None for stage in stages):
        budget["steps"] = sum(stage.steps or 0 for stage in stages)
    if all(stage.samples is not None for stage in stages):
        budget["samples"] = sum(stage.samples or 0 for stage in stages)
    if any(stage.epochs is not None for stage in stages):
        budget["epochs"] = sum(stage.epochs or 0 for stage in stages)
    planned = view.derived(experiment, "tokens.seen")
    if planned is not None:
        budget["tokens"] = planned
    return budget


def budgets_differ(view: AuditView) -> Iterable[Finding]:
    """Warnings: a variant or control whose planned or measured training differs in amount from its baseline's.

    A control that trains less fails for that reason, and shows nothing; one that never trains is meant to do without.
    """
    for index, comparison in view.comparisons():
        baseline = view.study.experiments[comparison.baseline]
        for arm in view.arms(comparison, controls=True)[1:]:
            untrained = arm.name in comparison.fail_controls and not view.training(arm)
            if _is_factor(view, comparison) or untrained:
                continue
            ours, theirs = planned_budget(view, baseline), planned_budget(view, arm)
            found = _differing(ours, theirs)
            measured = _differing(_measured(view, baseline), _measured(view, arm), tolerance=TOLERANCE)
            found |= {f"{name} (measured)": pair for name, pair in measured.items() if name not in found}
            if not found:
                continue
            told = "; ".join(f"{name} {shown(b)} against {shown(a)}" for name, (a, b) in found.items())
            yield finding(
                view,
                "training-budget-differs",
                "warning",
                place(index, comparison, arm.name),
                f"{arm.name} and its baseline {comparison.baseline} do not train equally much: {told}",
                remedy="give both the same steps, batch and stages, or add a baseline with the variant's budget",
                evidence={name: {"baseline": a, "variant": b} for name, (a, b) in found.items()},
                subjects=(comparison.baseline, arm.name),
                comparison=comparison,
            )


def _is_factor(view: AuditView, comparison: Comparison) -> bool:
    """Whether the amount of training is what the comparison is about."""
    ends = ("steps", "epochs", "batch")
    return any(path.rpartition(".")[2] in ends for path in comparison.factor) or covers(
        view.study, comparison.factor, "pipeline"
    )


def _measured(view: AuditView, experiment: Experiment) -> dict[str, Any]:
    """Return tokens and samples that finished training runs saw, all seeds' mean, of stages that are done at a seed."""
    if not view.has_results:
        return {}
    totals: dict[str, list[float]] = {}
    for done in view.done(experiment):
        for name in ("tokens.seen", "samples.seen", "steps.done"):
            value = done.result.facts.get(name)
            if isinstance(value, int | float):
                totals.setdefault(f"{done.run.stage.name} {name}", []).append(float(value))
    return {name: sum(values) / len(values) for name, values in totals.items()}


def _differing(
    ours: Mapping[str, Any], theirs: Mapping[str, Any], *, tolerance: float = 0.0
) -> dict[str, tuple[Any, Any]]:
    return {
        name: (ours[name], theirs[name])
        for name in ours
        if name in theirs and abs(ours[name] - theirs[name]) > tolerance * max(abs(ours[name]), abs(theirs[name]))
    }


CHECKS = (budgets_differ,)
