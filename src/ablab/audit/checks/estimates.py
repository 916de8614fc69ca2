"""Estimates: hours that do not add up, before the run and after it."""

from __future__ import annotations

from collections.abc import Iterable

from ablab.audit.findings import finding
from ablab.audit.view import AuditView
from ablab.contract.finding import Finding

#: Ratio between two figures of one duration from which they disagree.
DISAGREE = 1.25
#: Sources of a forecast that rest on a measurement.
MEASURED = ("history", "probe", "rehearsal")


def hours(seconds: float) -> str:
    """Return a duration for a sentence: 35 s, 12 min, 7 h 45 min."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def against_forecast(view: AuditView) -> Iterable[Finding]:
    """Notes: an arm's estimate that disagrees with what measurements forecast, or with what it took."""
    for experiment in view.study.experiments.values():
        if not experiment.estimate or experiment.planned:
            continue
        seed = next(iter(view.seeds(experiment)), None)
        runs = list(view.runs(experiment, seed=seed))
        if not runs:
            continue
        took = {done.run.key: sum(done.result.time.values()) for done in view.done(experiment, seed=seed)}
        measured = [took.get(run.key) or _forecast(run.estimate, run.estimate_source) for run in runs]
        known = [seconds for seconds in measured if seconds is not None]
        if len(known) < len(runs):
            continue
        total = sum(known)
        ratio = max(total, experiment.estimate) / max(min(total, experiment.estimate), 1e-9)
        if ratio > DISAGREE:
            verb = "took" if len(took) == len(runs) else "is forecast to take"
            yield finding(
                view,
                "estimate-off",
                "note",
                f"experiments.{experiment.name}.estimate",
                f"{experiment.name} is estimated at {hours(experiment.estimate)} and {verb} {hours(total)}, validation "
                "and later stages counted",
                remedy="correct the estimate; the plan uses measurements where there are any",
                evidence={"estimate": experiment.estimate, "measured": total},
                subjects=(experiment.name,),
            )


def _forecast(seconds: float | None, source: str) -> float | None:
    return seconds if any(word in source for word in MEASURED) else None


CHECKS = (against_forecast,)
