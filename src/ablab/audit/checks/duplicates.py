"""Duplicates: different runs whose results are identical to the last digit were copied, or ran the same thing."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping

from ablab.audit.checks.references import digits
from ablab.audit.findings import finding, listed
from ablab.audit.view import AuditView, Done
from ablab.contract.finding import Finding
from ablab.plan.graph import Run
from ablab.plan.keys import SCHEDULE, block_text

#: Digits that must agree in all, over all metrics; two floats of different runs practically never share these.
TELLING_DIGITS = 8


def identical_results(view: AuditView) -> Iterable[Finding]:
    """Errors: runs of one stage kind under different keys with equal metrics, seeds of one arm included."""
    groups: dict[tuple[object, ...], list[Done]] = defaultdict(list)
    for done in _finished(view):
        if done.run.stage.spec.metrics and _telling(done.result.metrics):
            groups[(done.run.stage.kind, *sorted(done.result.metrics.items()))].append(done)
    for group in groups.values():
        if len(group) < 2 or _same_work(view, group):
            continue
        users = [f"{done.run.experiment} seed {_seed(done)}" for done in group]
        experiments = tuple(dict.fromkeys(done.run.experiment for done in group))
        metrics = group[0].result.metrics
        name, value = next(iter(metrics.items()))
        yield finding(
            view,
            "identical-results",
            "error",
            f"experiments.{experiments[-1]}",
            f"{listed(users)} have different keys and results identical to the last digit "
            f"({len(metrics)} metrics, {name} {value!r})",
            remedy="the factor has no effect on what ran: check that it reaches the model, and that seeds are used",
            evidence={"runs": [done.run.name for done in group], "metrics": dict(metrics)},
            subjects=experiments,
        )


def _same_work(view: AuditView, group: list[Done]) -> bool:
    """Whether the runs differ in nothing but when they validate: their keys do where a best checkpoint counts."""
    works = [_work(view, done.run) for done in group]
    return all(work == works[0] for work in works)


def _work(view: AuditView, run: Run) -> tuple[object, ...]:
    """Return what a run computes, the validation schedule left out, through all that it reads."""
    plan, stage = view.plan, run.stage
    if plan is None or not run.inputs:
        return (run.key,)
    texts = [block_text(stage.sections[name], stage.kind) for name in stage.spec.sections]
    inputs = tuple((item.checkpoint, _work(view, plan.runs[item.key])) for item in run.inputs)
    return (stage.kind, run.seed, block_text(stage.parameters, stage.kind, SCHEDULE), *texts, inputs)


def _finished(view: AuditView) -> Iterable[Done]:
    """Yield finished runs, each once."""
    seen: set[str] = set()
    for experiment in view.study.experiments.values():
        for done in view.done(experiment):
            if done.run.key not in seen:
                seen.add(done.run.key)
                yield done


def _telling(metrics: Mapping[str, float]) -> bool:
    """Whether equal metrics could not be chance: enough digits, so that 0, 1 and 0.5 alone do not count."""
    return sum(digits(value) for value in metrics.values() if value == value) >= TELLING_DIGITS


def _seed(done: Done) -> object:
    return done.run.seed if done.run.seed is not None else done.run.users[0][1]


CHECKS = (identical_results,)
