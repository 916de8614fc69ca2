"""Learning rates and schedules: an arm with another rate is another experiment, whatever else was meant to differ."""

from __future__ import annotations

from collections.abc import Iterable

from ablab.audit.findings import finding, place, shown
from ablab.audit.training import TrainingStage, setting_of
from ablab.audit.view import AuditView, stage_place
from ablab.contract.finding import Finding
from ablab.study.differences import covers
from ablab.study.schema import Comparison, Experiment

#: Share of a run its warm-up may take before most of the run has a rate nobody asked for.
LONG_WARMUP = 0.5


def rates_differ(view: AuditView) -> Iterable[Finding]:
    """Warnings: a variant or control trained at another rate than its baseline, or tuned where that was not."""
    for index, comparison in view.comparisons():
        base = _by_name(view, view.study.experiments[comparison.baseline])
        for arm in view.arms(comparison, controls=True)[1:]:
            for name, own in _by_name(view, arm).items():
                other = base.get(name)
                if other is None or covers(view.study, comparison.factor, _path(own)):
                    continue
                yield from _differ(view, index, comparison, arm, other, own)


def _differ(
    view: AuditView, index: int, comparison: Comparison, arm: Experiment, base: TrainingStage, own: TrainingStage
) -> Iterable[Finding]:
    path = _path(own)
    tuned = (_tunes_rate(base), _tunes_rate(own))
    if tuned == (True, True):
        return
    if tuned[0] != tuned[1]:
        which, other = (arm.name, comparison.baseline) if tuned[1] else (comparison.baseline, arm.name)
        yield finding(
            view,
            "tuning-differs",
            "warning",
            place(index, comparison, arm.name),
            f"the learning rate of {which} is chosen by a sweep and that of {other} is not",
            remedy="sweep the same rates for every arm",
            subjects=(comparison.baseline, arm.name),
            comparison=comparison,
        )
    elif base.learning_rate is not None and own.learning_rate is not None and base.learning_rate != own.learning_rate:
        declared = " (declared under `also`, still a confound)" if covers(view.study, comparison.also, path) else ""
        yield finding(
            view,
            "learning-rate-differs",
            "warning",
            place(index, comparison, arm.name),
            f"{arm.name} trains at learning rate {shown(own.learning_rate)} in {own.stage.name}, its baseline "
            f"{comparison.baseline} at {shown(base.learning_rate)}{declared}",
            remedy="use one rate, or sweep the same rates for every arm and compare the best of each",
            evidence={comparison.baseline: base.learning_rate, arm.name: own.learning_rate, "path": path},
            subjects=(comparison.baseline, arm.name),
            comparison=comparison,
        )


def rates_mixed(view: AuditView) -> Iterable[Finding]:
    """Warnings: variants of one comparison trained with several rates, so that they do not compare with each other."""
    for index, comparison in view.comparisons():
        rates: dict[str, dict[float, list[str]]] = {}
        for arm in view.arms(comparison)[1:]:
            for name, own in _by_name(view, arm).items():
                if own.learning_rate is None or _tunes_rate(own) or covers(view.study, comparison.factor, _path(own)):
                    continue
                rates.setdefault(name, {}).setdefault(own.learning_rate, []).append(arm.name)
        for stage, found in rates.items():
            if len(found) > 1:
                told = "; ".join(f"{shown(rate)}: {', '.join(names)}" for rate, names in sorted(found.items()))
                yield finding(
                    view,
                    "learning-rates-mixed",
                    "warning",
                    place(index, comparison),
                    f"variants train {stage} at {len(found)} learning rates ({told}), so they do not compare with "
                    "each other",
                    remedy="use one rate for all arms, or sweep the same rates for each",
                    evidence={shown(rate): names for rate, names in found.items()},
                    subjects=tuple(name for names in found.values() for name in names),
                    comparison=comparison,
                )


def warmup(view: AuditView) -> Iterable[Finding]:
    """Errors: a warm-up longer than the run; warnings: one that takes most of it."""
    for experiment in view.study.experiments.values():
        for own in view.training(experiment):
            steps, warm = own.steps, setting_of(own.stage.parameters, "schedule.warmup")
            if own.owner != experiment.name or not steps or not warm or warm <= LONG_WARMUP * steps:
                continue
            whole = warm >= steps
            yield finding(
                view,
                "warmup-exceeds-run" if whole else "warmup-long",
                "error" if whole else "warning",
                stage_place(experiment, own.stage),
                f"{experiment.name} warms up for {shown(warm)} of {shown(steps)} steps of {own.stage.name}"
                + (": the peak rate is never reached" if whole else ""),
                remedy="shorten the warm-up, or give it as warmup_ratio so that it follows the length",
                evidence={"warmup": warm, "steps": steps},
                subjects=(experiment.name,),
            )


def schedule_cut_short(view: AuditView) -> Iterable[Finding]:
    """Warnings: arms that stopped before their schedule ended, or whose schedule was made for other steps."""
    for experiment in view.study.experiments.values():
        done, planned = _of_result(view, experiment, "steps.done"), _of_result(view, experiment, "steps.planned")
        if done is not None and planned is not None and 0 < done < planned:
            yield finding(
                view,
                "schedule-cut-short",
                "warning",
                f"experiments.{experiment.name}",
                f"{experiment.name} stopped after {shown(done)} of {shown(planned)} steps: its rate had not decayed as "
                "the schedule meant",
                remedy="compare it with arms of the same length only, or train without early stopping",
                evidence={"steps.done": done, "steps.planned": planned},
                subjects=(experiment.name,),
            )


def _of_result(view: AuditView, experiment: Experiment, name: str) -> int | None:
    fact = view.fact(experiment.name, name)
    return fact.value if fact is not None and fact.source == "result" and isinstance(fact.value, int) else None


def _by_name(view: AuditView, experiment: Experiment) -> dict[str, TrainingStage]:
    return {stage.stage.name: stage for stage in view.training(experiment)}


def _path(own: TrainingStage) -> str:
    return f"pipeline.{own.stage.name}.optimizer.learning_rate"


def _tunes_rate(own: TrainingStage) -> bool:
    return any(path.endswith("learning_rate") for path in own.tuned)


CHECKS = (rates_differ, rates_mixed, warmup, schedule_cut_short)
