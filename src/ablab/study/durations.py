"""Durations as people write them: 4h31m27s, 20 min, 1.5 h, 1:30:00, or seconds."""

from __future__ import annotations

import re

_SECONDS = {"d": 86400.0, "h": 3600.0, "m": 60.0, "s": 1.0}
_PART = re.compile(
    r"(\d+(?:\.\d+)?)\s*(d|days?|h|hrs?|hours?|m|mins?|minutes?|s|secs?|seconds?)(?![a-z])[\s,]*", re.ASCII
)
_CLOCK = re.compile(r"(\d{1,4}):([0-5]?\d)(?::([0-5]?\d(?:\.\d+)?))?", re.ASCII)


def parse_duration(value: float | str) -> float:
    """Return seconds; ValueError for what is no duration.

    >>> parse_duration("4h31m")
    16260.0
    """
    seconds = float(value) if isinstance(value, (int, float)) else _parse(value.strip().lower())
    if not 0 <= seconds < 1e10:
        raise ValueError(f"{value!r} is no duration")
    return seconds


def _parse(text: str) -> float:
    clock = _CLOCK.fullmatch(text)
    if clock:
        hours, minutes, seconds = clock.groups()
        return int(hours) * 3600.0 + int(minutes) * 60.0 + float(seconds or 0)
    position, total = 0, 0.0
    while position < len(text):
        part = _PART.match(text, position)
        if part is None:
            break
        total += float(part[1]) * _SECONDS[part[2][0]]
        position = part.end()
    if not text or position < len(text):
        raise ValueError(f"{text!r} is no duration; write 4h31m, 20 min, 1.5 h, 1:30:00, or seconds")
    return total
