"""What runs did, line by line with its time: a run's log for `ablab logs`, and one log an experiment beside the report.

A run leaves events and, where anything was printed, a text; both are told here, nothing is computed.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ablab.contract.units import duration, figure, size
from ablab.store.events import read_attempt_events

if TYPE_CHECKING:
    from ablab.report.view import View
    from ablab.store.layout import AttemptFolder, RunFolder

#: Steps told of one attempt; of more, every so many, and the last.
STEPS = 200
#: Keys of a step that are told first, and those that are not told.
_FIRST, _SILENT = ("loss", "lr"), ("e", "t", "step", "tokens", "attempt")


def run_log(folder: RunFolder, *, attempt: int | None = None) -> list[str]:
    """Return the lines of a run: of every attempt, or of one."""
    numbers = folder.attempts() if attempt is None else [attempt]
    return [line for number in numbers for line in attempt_lines(folder.attempt(number))]


def attempt_lines(attempt: AttemptFolder) -> Iterator[str]:
    """Yield what an attempt reported, then what it printed."""
    events = read_attempt_events(attempt.events, problems=[])
    told = _told_steps([place for place, event in enumerate(events) if event.get("e") == "step"])
    yield from event_lines((e for place, e in enumerate(events) if e.get("e") != "step" or place in told), attempt)
    if attempt.log.exists():
        yield from attempt.log.read_text(encoding="utf-8", errors="replace").splitlines()


def event_lines(events: Iterable[Mapping[str, Any]], attempt: AttemptFolder) -> Iterator[str]:
    """Yield a line for every event that people read, with the time it happened."""
    total: int | None = None
    for event in events:
        if event.get("e") == "start":
            total = event.get("steps")
        text = event_text(event, total=total, attempt=attempt.number)
        if text:
            yield f"{_clock(event.get('t'))}  {text}"


def _told_steps(places: Sequence[int]) -> set[int]:
    stride = -(-len(places) // STEPS) or 1
    return {*places[::stride], *places[-1:]}


def event_text(event: Mapping[str, Any], *, total: int | None = None, attempt: int = 1) -> str:
    """Return an event as a sentence; "" for those that only machines read."""
    kind, step = event.get("e"), event.get("step")
    of = f" of {total}" if total else ""
    if kind == "start":
        from_step = f" at step {step}" if step else ""
        micro = f", micro-batch {event['micro_batch']}" if event.get("micro_batch") else ""
        steps = f": {total} steps" if total else ""
        return f"attempt {attempt} starts{from_step} on {event.get('host', 'an unnamed host')}{steps}{micro}"
    if kind == "step":
        names = [*_FIRST, *(name for name in event if name not in (*_FIRST, *_SILENT))]
        return f"step {step}{of}: {_pairs({name: event[name] for name in names if name in event})}"
    if kind == "validation":
        seconds = event.get("seconds")
        took = f" ({duration(seconds)})" if seconds is not None else ""
        return f"validation at step {step}: {_pairs(event.get('values', {}))}{took}"
    if kind == "checkpoint":
        tags = ", ".join(event.get("tags", ()))
        return f"checkpoint at step {step}{f' ({tags})' if tags else ''}, {size(event.get('bytes'))}"
    if kind == "message":
        return str(event.get("text", ""))
    if kind == "end":
        message = event.get("message")
        return f"ends: {event.get('kind')}" + (f", {message}" if message else "")
    return ""


def _pairs(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {figure(value)}" for name, value in values.items())


def _clock(moment: float | None) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(moment)) if moment is not None else " " * 19


def experiment_log(view: View, name: str) -> str:
    """Return the log of an experiment: its runs in the order they began, those it shares with others too."""
    purpose = view.study.experiments[name].purpose
    lines = [f"{name}: {purpose}" if purpose else name]
    records = sorted(view.records(name), key=lambda record: (record.started is None, record.started or 0.0))
    for record in records:
        if not record.attempts:
            continue
        seed = "" if record.seed is None else f" seed {record.seed}"
        others = [user for user in dict.fromkeys(user for user, _ in record.users) if user != name]
        shared = f", shared with {', '.join(others)}" if others else ""
        lines += ["", f"== {record.stage}{seed} ({record.name}{shared}): {record.status}"]
        lines += run_log(view.store.run(record.name))
        result = {metric: value for metric, value in record.metrics.items() if not metric.startswith("train/")}
        if record.status == "done" and result:
            lines.append(f"result: {_pairs(result)}")
    return "\n".join([*lines, ""])


def write_logs(view: View, folder: Path) -> list[Path]:
    """Write `logs/<experiment>.log` below a folder for every experiment that has begun; return the files."""
    from ablab.store.files import write_text
    from ablab.store.layout import safe_name
    from ablab.store.redact import hide_known

    written = []
    for name in view.study.experiments:
        if any(record.attempts for record in view.own(name)):
            path = folder / "logs" / f"{safe_name(name)}.log"
            path.parent.mkdir(parents=True, exist_ok=True)
            text = hide_known(experiment_log(view, name))
            if not path.exists() or path.read_text(encoding="utf-8") != text:
                write_text(path, text, sync=False)
            written.append(path)
    return written
