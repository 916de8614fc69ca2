"""The machine: step times of runs that shared it are contention, not speed."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ablab.audit.findings import finding, listed, place
from ablab.audit.view import AuditView, Done
from ablab.contract.finding import Finding
from ablab.store.events import tail_events
from ablab.store.layout import RunFolder
from ablab.study.schema import Comparison

#: Share of a run's time another run must overlap with.
LEAST = 0.01
_SPEED_WORDS = ("second", "time", "speed", "throughput", "latency")


@dataclass(frozen=True, slots=True)
class _Span:
    start: float
    end: float
    host: str


def shared_machine(view: AuditView) -> Iterable[Finding]:
    """Warnings: a comparison whose timed runs shared their machine with other runs, all or some of them."""
    spans = _spans(view)
    for index, comparison in view.comparisons():
        sharing: dict[str, list[str]] = {}
        alone: list[str] = []
        for arm in view.arms(comparison):
            timed = [done for done in view.done(arm) if done.result.steps]
            if not timed:
                continue
            others = sorted({other for done in timed for other in _others(view, done, spans)})
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


def _spans(view: AuditView) -> dict[str, list[_Span]]:
    """Return when each finished run of the study occupied which machine."""
    found: dict[str, list[_Span]] = {}
    for experiment in view.study.experiments.values():
        for done in view.done(experiment):
            if done.run.key not in found:
                found[done.run.key] = list(_attempts(done.folder))
    return found


def _attempts(folder: RunFolder) -> Iterable[_Span]:
    import json

    for number in folder.attempts():
        path = folder.attempt(number).events
        try:
            with path.open("rb") as stream:
                first = json.loads(stream.readline())
        except (FileNotFoundError, ValueError):
            continue
        last = tail_events(path, 1)
        if isinstance(first, dict) and last:
            yield _Span(float(first.get("t", 0)), float(last[-1].get("t", 0)), str(first.get("host", "")))


def _others(view: AuditView, done: Done, spans: dict[str, list[_Span]]) -> list[str]:
    """Return the experiments whose runs overlapped with one on its machine."""
    own = spans.get(done.run.key, [])
    whole = sum(span.end - span.start for span in own)
    found = []
    for key, theirs in spans.items():
        if key == done.run.key or view.plan is None:
            continue
        both = sum(max(0.0, min(a.end, b.end) - max(a.start, b.start)) for a in own for b in theirs if a.host == b.host)
        if both > 0 and both >= LEAST * whole:
            found.append(view.plan.runs[key].experiment)
    return found


CHECKS = (shared_machine,)
