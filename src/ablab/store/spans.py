"""When runs occupied machines, read from their events, and which of them did so at the same time.

A span begins with an attempt's first event and ends with its last; timings of runs that overlapped on one machine do
not compare.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from ablab.store.events import tail_events
from ablab.store.layout import RunFolder

#: Share of a run's time another run must overlap with before the machine counts as shared.
LEAST_OVERLAP = 0.01


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """Wall-clock seconds (Unix time) that one attempt of a run occupied a machine."""

    start: float
    end: float
    host: str = ""
    attempt: int = 1

    def overlap(self, other: Span) -> float:
        """Return the seconds both ran on one machine."""
        if self.host != other.host:
            return 0.0
        return max(0.0, min(self.end, other.end) - max(self.start, other.start))


def read_spans(run: RunFolder) -> Iterator[Span]:
    """Yield the span of each attempt; attempts without events are left out."""
    for number in run.attempts():
        path = run.attempt(number).events
        first, last = _first_event(path), tail_events(path, 1)
        if first is not None and last:
            yield Span(
                start=float(first.get("t", 0.0)),
                end=float(last[-1].get("t", 0.0)),
                host=str(first.get("host", "")),
                attempt=number,
            )


def overlapping(spans: Mapping[str, Sequence[Span]]) -> dict[str, tuple[str, ...]]:
    """Return, for every run that shared its machine, the runs it shared it with.

    Attempts are swept by their start, so the cost grows with the overlaps there are, not with all pairs.

    Args:
        spans: attempts of each run, by key.
    """
    swept = sorted(((span, key) for key, own in spans.items() for span in own), key=lambda pair: pair[0].start)
    seconds: dict[str, dict[str, float]] = {}
    active: list[tuple[Span, str]] = []
    for span, key in swept:
        active = [(earlier, other) for earlier, other in active if earlier.end > span.start]
        for earlier, other in active:
            both = earlier.overlap(span)
            if both > 0 and other != key:
                for one, another in ((key, other), (other, key)):
                    found = seconds.setdefault(one, {})
                    found[another] = found.get(another, 0.0) + both
        active.append((span, key))
    telling = {}
    for key, others in seconds.items():
        least = LEAST_OVERLAP * sum(span.end - span.start for span in spans[key])
        if names := tuple(other for other, both in others.items() if both >= least):
            telling[key] = names
    return telling


def _first_event(path: Path) -> dict[str, Any] | None:
    """Return the first event of a file, after its format line; None when there is none that can be read."""
    try:
        with path.open("rb") as stream:
            events = (json.loads(line) for line in islice(stream, 2))
            return next((event for event in events if isinstance(event, dict) and "e" in event), None)
    except (FileNotFoundError, ValueError):
        return None
