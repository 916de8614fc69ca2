"""Merges: task vectors of zero, bases that are nobody's parent, and trims that change nothing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from ablab.audit.findings import finding, shown
from ablab.audit.view import AuditView, stage_place
from ablab.contract.finding import Finding
from ablab.contract.merge import OF_WEIGHTS, Merge
from ablab.study.schema import Experiment, Stage


def _merges(view: AuditView) -> Iterator[tuple[Experiment, Stage, Merge]]:
    for experiment in view.study.experiments.values():
        for stage in experiment.stages:
            if isinstance(stage.parameters, Merge):
                yield experiment, stage, stage.parameters


def _target(experiment: Experiment, stage: Stage, name: str) -> tuple[str, str, str] | None:
    """Return (experiment, stage, checkpoint) that a model's name leads to; None for folders and hub names."""
    for need in stage.needs:
        if need.text == name:
            return need.experiment or experiment.name, need.stage, need.checkpoint
    return None


def zero_vector(view: AuditView) -> Iterable[Finding]:
    """Errors: a model that is the base by another name, so that its task vector is zero."""
    for experiment, stage, merge in _merges(view):
        if merge.base is None:
            continue
        base = _target(experiment, stage, merge.base)
        runs = _keys(view, experiment, stage)
        for index, each in enumerate(merge.models):
            other = _target(experiment, stage, each.model)
            if base is None or other is None:
                continue
            same = runs.get(merge.base) is not None and runs.get(merge.base) == runs.get(each.model)
            if other == base or same:
                yield finding(
                    view,
                    "task-vector-zero",
                    "error",
                    f"{stage_place(experiment, stage)}.models[{index}]",
                    f"{each.model} is the base {merge.base} itself: its task vector is zero, and its weight "
                    f"{shown(each.weight)} does nothing but dilute the others",
                    remedy="name as base the model that all were tuned from, or train this model on from the base",
                    evidence={"base": merge.base, "model": each.model, "run": runs.get(merge.base)},
                    subjects=(experiment.name,),
                )


def _keys(view: AuditView, experiment: Experiment, stage: Stage) -> dict[str, tuple[str, str]]:
    """Return (key, checkpoint) of each input of a merge by its name, as the plan has it for the first seed."""
    for seed in view.seeds(experiment):
        run = None if view.plan is None else view.plan.run_of(experiment.name, seed, stage.name)
        if run is not None:
            return {given.reference: (given.key, given.checkpoint) for given in run.inputs}
    return {}


def base_no_parent(view: AuditView) -> Iterable[Finding]:
    """Warnings: a merge of task vectors from a base that a model was not trained from."""
    for experiment, stage, merge in _merges(view):
        if merge.base is None or merge.method in OF_WEIGHTS:
            continue
        base = _target(experiment, stage, merge.base)
        for index, each in enumerate(merge.models):
            model = _target(experiment, stage, each.model)
            if base is None or model is None or base[:2] == model[:2] or base[:2] in _ancestors(view, model[:2]):
                continue
            yield finding(
                view,
                "merge-base-no-parent",
                "warning",
                f"{stage_place(experiment, stage)}.models[{index}]",
                f"{each.model} was not trained from the base {merge.base}: the difference of the two is no task "
                "vector, but the way between two models",
                remedy="name as base the stage that this model was trained from",
                evidence={"base": merge.base, "model": each.model},
                subjects=(experiment.name,),
            )


def _ancestors(view: AuditView, place: tuple[str, str]) -> set[tuple[str, str]]:
    """Return (experiment, stage) of all that a stage reads, directly or not."""
    found: set[tuple[str, str]] = set()
    left = [place]
    while left:
        owner, name = left.pop()
        experiment = view.study.experiments.get(owner)
        stages = () if experiment is None else experiment.stages
        for stage in stages:
            if stage.name == name:
                needs = {(need.experiment or owner, need.stage) for need in stage.needs}
                left += needs - found
                found |= needs
    return found


def idle_trim(view: AuditView) -> Iterable[Finding]:
    """Warnings: after a drop at random, a trim to at least as many entries as the drop left."""
    for experiment, stage, merge in _merges(view):
        for index, each in enumerate(merge.models):
            if each.trim is None or each.density is None or each.trim < each.density:
                continue
            yield finding(
                view,
                "trim-changes-nothing",
                "warning",
                f"{stage_place(experiment, stage)}.models[{index}].trim",
                f"{each.model}: the drop leaves {shown(each.density)} of the entries, so keeping the largest "
                f"{shown(each.trim)} of all keeps every one: the trim does nothing",
                remedy=f"take trim out, or set it below {shown(each.density)}",
                evidence={"density": each.density, "trim": each.trim},
                subjects=(experiment.name,),
            )


CHECKS = (zero_vector, base_no_parent, idle_trim)
