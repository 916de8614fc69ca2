"""Does a comparison isolate its factor: every difference between a variant and its baseline is declared."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ablab.audit.findings import finding, place, shown
from ablab.audit.view import AuditView
from ablab.contract.finding import Finding
from ablab.study.differences import covers, differences
from ablab.study.schema import Comparison, Experiment


def all_differences(baseline: Experiment, variant: Experiment) -> dict[str, tuple[Any, Any]]:
    """Return what differs by study path: settings, and the outside data that settings alone do not show (files)."""
    found = dict(differences(baseline, variant))
    ours, theirs = _outside(baseline), _outside(variant)
    for path in {**ours, **theirs}:
        if path not in found and ours.get(path) != theirs.get(path):
            found[path] = (ours.get(path), theirs.get(path))
    return found


def _outside(experiment: Experiment) -> dict[str, list[str]]:
    """Return the names of outside data by study path, list positions left out."""
    names: dict[str, list[str]] = {}
    for stage in experiment.stages:
        if stage.spec.references is not None:
            for reference in stage.spec.references(stage.sections, stage.parameters):
                names.setdefault(reference.path.partition("[")[0], []).append(reference.name)
    return {path: sorted(set(found)) for path, found in names.items() if path}


def undeclared_differences(view: AuditView) -> Iterable[Finding]:
    """Errors: differences outside factor and `also`; notes: differences that `also` declares."""
    for index, comparison in view.comparisons():
        baseline = view.study.experiments[comparison.baseline]
        for name in comparison.variants:
            found = all_differences(baseline, view.study.experiments[name])
            where = place(index, comparison, name)
            outside = {path: pair for path, pair in found.items() if not covers(view.study, comparison.factor, path)}
            declared = {path: pair for path, pair in outside.items() if covers(view.study, comparison.also, path)}
            stray = {path: pair for path, pair in outside.items() if path not in declared}
            if stray:
                yield finding(
                    view,
                    "difference-outside-factor",
                    "error",
                    where,
                    f"{name} differs from {comparison.baseline} outside the factor: {_told(stray)}",
                    remedy="make them equal, or declare them under `also:` and carry the caveat",
                    evidence=_evidence(stray),
                    subjects=(comparison.baseline, name),
                    comparison=comparison,
                )
            if declared:
                yield finding(
                    view,
                    "declared-difference",
                    "note",
                    where,
                    f"{name} also differs from {comparison.baseline}, as declared: {_told(declared)}",
                    remedy="the verdict carries this as a caveat",
                    evidence=_evidence(declared),
                    subjects=(comparison.baseline, name),
                    comparison=comparison,
                )


def factor_without_difference(view: AuditView) -> Iterable[Finding]:
    """Errors: a variant equal to its baseline, or equal in the factor the comparison is about."""
    for index, comparison in view.comparisons():
        baseline = view.study.experiments[comparison.baseline]
        for name in comparison.arms[1:]:
            found = all_differences(baseline, view.study.experiments[name])
            is_control = name not in comparison.variants
            if not found or _same_runs(view, comparison, name):
                yield finding(
                    view,
                    "identical-variant",
                    "error",
                    place(index, comparison, name),
                    f"{name} is the same experiment as its baseline {comparison.baseline}: their runs have equal keys",
                    remedy="change the factor in one of them, or remove the arm",
                    subjects=(comparison.baseline, name),
                    comparison=comparison,
                )
            elif (
                not is_control
                and comparison.factor
                and not any(covers(view.study, comparison.factor, path) for path in found)
            ):
                yield finding(
                    view,
                    "factor-without-difference",
                    "error",
                    place(index, comparison, name),
                    f"{name} and {comparison.baseline} do not differ in the factor {', '.join(comparison.factor)}",
                    remedy="set the factor in the variant, or name the factor the two do differ in",
                    evidence=_evidence(found),
                    subjects=(comparison.baseline, name),
                    comparison=comparison,
                )


def equal_variants(view: AuditView) -> Iterable[Finding]:
    """Warnings: two variants of a comparison that are the same experiment under two names: all their keys are equal."""
    for index, comparison in view.comparisons():
        known: dict[tuple[str, ...], str] = {}
        for name in comparison.arms[1:]:
            arm = view.study.experiments[name]
            keys = tuple(run.key for run in view.runs(arm))
            if keys and known.setdefault(keys, name) != name:
                yield finding(
                    view,
                    "identical-arms",
                    "warning",
                    place(index, comparison, name),
                    f"{name} is the same experiment as {known[keys]}: their runs have equal keys",
                    remedy="remove one of them: a second name adds no evidence and costs a Holm step",
                    subjects=(known[keys], name),
                    comparison=comparison,
                )


def _same_runs(view: AuditView, comparison: Comparison, name: str) -> bool:
    """Whether baseline and variant share the run of their last stage at every seed of the plan."""
    keys = []
    for arm in (view.study.experiments[comparison.baseline], view.study.experiments[name]):
        if view.plan is None or not arm.stages:
            return False
        last = arm.stages[-1].name
        keys.append({seed: view.plan.by_user.get((arm.name, seed, last)) for seed in view.seeds(arm)})
    common = [seed for seed in keys[0] if seed in keys[1] and keys[0][seed] is not None]
    return bool(common) and all(keys[0][seed] == keys[1][seed] for seed in common)


def _told(found: Mapping[str, tuple[Any, Any]], most: int = 5) -> str:
    parts = [f"{path} {shown(ours)} against {shown(theirs)}" for path, (ours, theirs) in found.items()]
    return "; ".join(parts[:most]) + (f"; and {len(parts) - most} more" if len(parts) > most else "")


def _evidence(found: Mapping[str, tuple[Any, Any]]) -> dict[str, Any]:
    return {path: {"baseline": ours, "variant": theirs} for path, (ours, theirs) in found.items()}


CHECKS = (undeclared_differences, factor_without_difference, equal_variants)
