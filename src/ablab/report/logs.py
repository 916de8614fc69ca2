"""What runs did, line by line with its time: a run's log for `ablab logs`, and one log an experiment beside the report.

A run leaves events and, where anything was printed, a text; both are told here, nothing is computed.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ablab.contract.units import duration, figure, size
from ablab.store.lines import parse_lines

if TYPE_CHECKING:
    from ablab.analysis.results import RunRecord
    from ablab.report.view import View
    from ablab.store.layout import AttemptFolder, RunFolder

#: Steps told of one attempt; of more, every so many, and the last.
STEPS = 100
#: How the line of a step begins, as its worker writes it.
_STEP = b'{"e":"step"'
#: Keys of a step that are told first, and those that are not told.
_FIRST, _SILENT = ("loss", "lr"), ("e", "t", "step", "tokens", "attempt")


def run_log(folder: RunFolder, *, attempt: int | None = None) -> list[str]:
    """Return the lines of a run: of every attempt, or of one."""
    numbers = folder.attempts() if attempt is None else [attempt]
    return [line for number in numbers for line in attempt_lines(folder.attempt(number))]


def attempt_lines(attempt: AttemptFolder) -> Iterator[str]:
    """Yield what an attempt reported, then what it printed."""
    yield from event_lines(_told_events(attempt.events), attempt)
    if attempt.log.exists():
        yield from attempt.log.read_text(encoding="utf-8", errors="replace").splitlines()


def _told_events(path: Path) -> list[dict[str, Any]]:
    """Return the events of a file that are told; steps are thinned before they are parsed, for there are millions."""
    data = path.read_bytes() if path.exists() else b""
    data = data[: data.rfind(b"\n") + 1]
    return parse_lines(_thinned(data), path, problems=[], exact=False)


def _thinned(data: bytes) -> bytes:
    """Return whole lines without most of the steps: every so many stay, and the last."""
    if len(data) <= STEPS * len(_STEP):
        return data
    import numpy as np

    letters = np.frombuffer(data, np.uint8)
    ends = np.flatnonzero(letters == ord("\n")) + 1
    starts = np.concatenate(([0], ends[:-1]))
    # Letter by letter, for all lines that began alike so far.
    steps = np.flatnonzero(ends - starts > len(_STEP))
    for place, letter in enumerate(_STEP):
        steps = steps[letters[starts[steps] + place] == letter]
    if len(steps) <= STEPS:
        return data
    kept = np.ones(len(starts), bool)
    kept[steps] = False
    kept[steps[:: -(-len(steps) // STEPS)]] = True
    kept[steps[-1:]] = True
    return b"".join(data[start:end] for start, end in zip(starts[kept].tolist(), ends[kept].tolist(), strict=True))


def event_lines(events: Iterable[Mapping[str, Any]], attempt: AttemptFolder) -> Iterator[str]:
    """Yield a line for every event that people read, with the time it happened."""
    total: int | None = None
    for event in events:
        if event.get("e") == "start":
            total = event.get("steps")
        text = event_text(event, total=total, attempt=attempt.number)
        if text:
            yield f"{_clock(event.get('t'))}  {text}"


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
    lines = [_title(view, name)]
    for heading, record in _headings(view, name):
        lines += ["", heading, *run_log(view.store.run(record.name))]
        result = {metric: value for metric, value in record.metrics.items() if not metric.startswith("train/")}
        if record.status == "done" and result:
            lines.append(f"result: {_pairs(result)}")
    return "\n".join([*lines, ""])


def _title(view: View, name: str) -> str:
    purpose = view.study.experiments[name].purpose
    return f"{name}: {purpose}" if purpose else name


def _headings(view: View, name: str) -> list[tuple[str, RunRecord]]:
    """Return the runs of an experiment that have begun, in this order, each under its heading."""
    found = []
    for record in sorted(view.records(name), key=lambda record: (record.started is None, record.started or 0.0)):
        if record.attempts:
            seed = "" if record.seed is None else f" seed {record.seed}"
            others = [user for user in dict.fromkeys(user for user, _ in record.users) if user != name]
            shared = f", shared with {', '.join(others)}" if others else ""
            found.append((f"== {record.stage}{seed} ({record.name}{shared}): {record.status}", record))
    return found


def write_logs(view: View, folder: Path) -> list[Path]:
    """Write `logs/<experiment>.log` below a folder for every experiment that has begun; return the files.

    A log whose runs are over, and which is newer than they are, stays as it is.
    """
    from ablab.store.files import write_text
    from ablab.store.layout import safe_name
    from ablab.store.redact import hide_known

    written = []
    for name in view.study.experiments:
        if any(record.attempts for record in view.own(name)):
            path = folder / "logs" / f"{safe_name(name)}.log"
            if not _is_current(view, name, path):
                path.parent.mkdir(parents=True, exist_ok=True)
                write_text(path, hide_known(experiment_log(view, name)), sync=False)
            written.append(path)
    return written


def _is_current(view: View, name: str, path: Path) -> bool:
    """Whether a log tells its runs as they are: none goes on, none wrote since, and title and headings are the same."""
    if not path.exists():
        return False
    headings = _headings(view, name)
    if any(record.status == "running" for _, record in headings):
        return False
    written = path.stat().st_mtime_ns
    for _, record in headings:
        run = view.store.run(record.name)
        attempts = [run.attempt(number) for number in run.attempts()]
        sources = [run.state_path, *(each for attempt in attempts for each in (attempt.events, attempt.log))]
        if any(source.stat().st_mtime_ns >= written for source in sources if source.exists()):
            return False
    title, *lines = path.read_text(encoding="utf-8").splitlines()
    told = [line for line in lines if line.startswith("== ")]
    return [title, *told] == [_title(view, name), *(heading for heading, _ in headings)]
