"""The machine: step times of runs that shared it are contention, not speed."""

from __future__ import annotations

from collections.abc import Iterable

from ablab.audit.findings import finding, listed, place
from ablab.audit.view import AuditView
from ablab.contract.finding import Finding
from ablab.store.spans import overlapping, read_spans
from ablab.study.schema import Comparison

_SPEED_WORDS = ("second", "time", "speed", "throughput", "latency")


def shared_machine(view: AuditView) -> Iterable[Finding]:
    """Warnings: a comparison whose timed runs shared their machine with other runs, all or some of them."""
    sharing_runs = _sharing(view)
    for index, comparison in view.comparisons():
        sharing: dict[str, list[str]] = {}
        alone: list[str] = []
        for arm in view.arms(comparison):
            timed = [done for done in view.done(arm) if done.result.steps]
            if not timed:
                continue
            others = sorted({other for done in timed for other in sharing_runs.get(done.run.key, ())})
            if others or any(done.result.shared for done in timed):
                sharing[arm.name] = others
            else:
                alone.append(arm.name)
        if sharing and (alone or len(sharing) > 1):
            yield _shared(view, index, comparison, sharing, alone)


def _shared(
    view: AuditView, index: int, comparison: Comparison, sharing: dict[str, list[str]], alone: list[str]
) -> Finding:
    told = "; ".join(
        f"{name} ran beside {listed(others)}" if others else f"{name} ran beside other runs"
        for name, others in sharing.items()
    )
    rest = f", while {listed(alone)} ran alone" if alone else ""
    decisive = any(word in comparison.metric for word in _SPEED_WORDS)
    return finding(
        view,
        "speed-shared-machine",
        "error" if decisive else "warning" if alone else "note",
        place(index, comparison),
        f"step times do not compare: {told}{rest}: what differs is contention, not speed",
        remedy="time the arms alone, one after the other (compute.slots: 1), before speaking of speed",
        evidence={"shared": sharing, "alone": alone},
        subjects=(*sharing, *alone),
        comparison=comparison,
    )


def _sharing(view: AuditView) -> dict[str, list[str]]:
    """Return, by key of a finished run, the experiments of runs that shared its machine."""
    spans, owners = {}, {}
    for experiment in view.study.experiments.values():
        for done in view.done(experiment):
            if done.run.key not in spans:
                spans[done.run.key], owners[done.run.key] = list(read_spans(done.folder)), done.run.experiment
    found = overlapping(spans)
    return {key: sorted({owners[other] for other in others}) for key, others in found.items()}


CHECKS = (shared_machine,)
