"""Parameters: what should train and did not move, what is frozen and did, patterns that match nothing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from ablab.audit.findings import finding, listed, not_checked, place, shown
from ablab.audit.training import setting_of
from ablab.audit.view import AuditView, stage_place
from ablab.contract.finding import Finding
from ablab.study.schema import Experiment

#: Relative difference in parameter counts worth a word.
COUNT_TOLERANCE = 0.01


def movement(view: AuditView) -> Iterable[Finding]:
    """Errors: frozen parameters that moved, runs that train nothing; warnings: trained parameters that stood still."""
    lacking: list[str] = []
    for experiment in view.study.experiments.values():
        for own in view.training(experiment):
            if own.owner != experiment.name or experiment.planned:
                continue
            facts = view.facts(experiment.name, stage=own.stage.name) or {}
            if "moved.still" not in facts:
                lacking.append(experiment.name)
            yield from _moved(view, experiment, stage_place(experiment, own.stage), facts)
    if lacking:
        yield not_checked(
            view,
            "parameters-moved",
            f"experiments.{lacking[0]}",
            f"whether the parameters of {listed(lacking)} move as they should is known once two steps are run",
            subjects=tuple(dict.fromkeys(lacking)),
        )


def _moved(view: AuditView, experiment: Experiment, where: str, facts: Mapping[str, object]) -> Iterable[Finding]:
    still, frozen = _names(facts.get("moved.still")), _names(facts.get("moved.frozen"))
    if frozen:
        yield finding(
            view,
            "frozen-parameters-moved",
            "error",
            where,
            f"{len(frozen)} frozen parameters of {experiment.name} changed in training: {listed(frozen)}",
            remedy="freeze them by requires_grad and leave them out of the optimiser; weight decay moves them too",
            evidence={"parameters": frozen},
            subjects=(experiment.name,),
        )
    if still:
        yield finding(
            view,
            "trained-parameters-still",
            "warning",
            where,
            f"{len(still)} trained parameters of {experiment.name} did not change in two steps: {listed(still)}",
            remedy="check that they take part in the loss (unused layers, detached features, zero learning rate)",
            evidence={"parameters": still},
            subjects=(experiment.name,),
        )
    if facts.get("parameters.trained") == 0:
        yield finding(
            view,
            "nothing-trains",
            "error",
            where,
            f"{experiment.name} has no parameter that trains",
            remedy="check the freezing patterns",
            subjects=(experiment.name,),
        )


def patterns(view: AuditView) -> Iterable[Finding]:
    """Errors: a parameter-name pattern that matches nothing, which would silently train or freeze the wrong thing."""
    for experiment in view.study.experiments.values():
        for own in view.training(experiment):
            groups = setting_of(own.stage.parameters, "optimizer.groups")
            if own.owner != experiment.name or not groups:
                continue
            where = stage_place(experiment, own.stage)
            facts = view.facts(experiment.name, stage=own.stage.name) or {}
            matched = facts.get("parameters.groups")
            if not isinstance(matched, Mapping):
                lacking = f"whether the patterns of {experiment.name} match any parameter is known once it is built"
                yield not_checked(view, "pattern-matches-nothing", where, lacking, subjects=(experiment.name,))
                continue
            missed = [group.pattern for group in groups if not (matched.get(group.pattern) or {}).get("total")]
            if missed:
                yield finding(
                    view,
                    "pattern-matches-nothing",
                    "error",
                    where,
                    f"no parameter of {experiment.name} is called {listed(missed)}",
                    remedy="use names the model has (`ablab show` lists them), or an earlier pattern took them all",
                    evidence={"patterns": missed},
                    subjects=(experiment.name,),
                )


def counts(view: AuditView) -> Iterable[Finding]:
    """Notes: arms of a comparison that differ in size, where the figure is known."""
    for index, comparison in view.comparisons():
        sizes = {arm.name: view.fact(arm.name, "parameters.total") for arm in view.arms(comparison)}
        known = {name: fact.value for name, fact in sizes.items() if fact is not None and fact.value}
        base = known.get(comparison.baseline)
        for name, size in known.items():
            if base and abs(size - base) > COUNT_TOLERANCE * base:
                yield finding(
                    view,
                    "parameter-count-differs",
                    "note",
                    place(index, comparison, name),
                    f"{name} has {shown(size)} parameters, its baseline {comparison.baseline} {shown(base)}",
                    remedy="say whether size is part of the factor, or match it",
                    evidence={comparison.baseline: base, name: size},
                    subjects=(comparison.baseline, name),
                    comparison=comparison,
                )


def _names(value: object) -> list[str]:
    return [str(name) for name in value] if isinstance(value, list | tuple) else []


CHECKS = (movement, patterns, counts)
