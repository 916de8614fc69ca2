"""Small drawings in text: a curve in one line, a curve in a box of braille dots, a bar of progress."""

from __future__ import annotations

import math
from collections.abc import Sequence

_LEVELS = "▁▂▃▄▅▆▇█"
_BAR = " ▏▎▍▌▋▊▉"
#: Bits of the dots of a braille character, by row and column.
_DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))


def sparkline(values: Sequence[float], *, width: int = 20, limits: tuple[float, float] | None = None) -> str:
    """Return values as a line of blocks; each column is the mean of its share, a column without a number is a dot.

    Args:
        values: in their order.
        width: most columns.
        limits: lowest and highest value of the scale; None takes those of the values.
    """
    columns = _columns(values, min(width, len(values)))
    finite = [value for value in columns if math.isfinite(value)]
    if not finite:
        return "·" * len(columns)
    low, high = limits or (min(finite), max(finite))
    return "".join("·" if not math.isfinite(value) else _level(value, low, high) for value in columns)


def _level(value: float, low: float, high: float) -> str:
    """Return the block of a value on a scale; the middle one where the scale has no extent."""
    return _LEVELS[min(7, max(0, int(8 * _share(value, low, high))))] if high / 2 > low / 2 else "▄"


def _columns(values: Sequence[float], width: int) -> list[float]:
    """Return means of `width` equal shares of the values; not-a-numbers of a share are left out."""
    found = []
    for column in range(width):
        share = values[column * len(values) // width : (column + 1) * len(values) // width]
        finite = [value for value in share if math.isfinite(value)]
        found.append(math.fsum(value / len(finite) for value in finite) if finite else math.nan)
    return found


def braille(lines: Sequence[Sequence[tuple[float, float]]], *, width: int, height: int) -> list[str]:
    """Return curves drawn in a box of braille characters, `height` lines of `width`; empty without a finite point.

    Args:
        lines: each a curve of (x, y).
        width, height: of the box in characters; two by four dots each.
    """
    points = [(x, y) for line in lines for x, y in line if math.isfinite(x) and math.isfinite(y)]
    if not points or width < 1 or height < 1:
        return []
    left, right = min(x for x, _ in points), max(x for x, _ in points)
    low, high = min(y for _, y in points), max(y for _, y in points)
    columns, rows = 2 * width, 4 * height
    cells = [[0] * width for _ in range(height)]
    for line in lines:
        before: tuple[int, int] | None = None
        for x, y in line:
            if not (math.isfinite(x) and math.isfinite(y)):
                before = None
                continue
            column = round(_share(x, left, right) * (columns - 1)) if right > left else 0
            row = round((1 - _share(y, low, high)) * (rows - 1)) if high > low else rows // 2
            for c, r in _between(before, (column, row)):
                cells[r // 4][c // 2] |= _DOTS[r % 4][c % 2]
            before = (column, row)
    return ["".join(chr(0x2800 + cell) for cell in row) for row in cells]


def _share(value: float, low: float, high: float) -> float:
    """Return where a value lies between two others, 0 to 1; halved first, so that no difference overflows."""
    return (value / 2 - low / 2) / (high / 2 - low / 2) if high / 2 > low / 2 else 0.0


def _between(start: tuple[int, int] | None, end: tuple[int, int]) -> list[tuple[int, int]]:
    """Return the dots of a straight line from `start` (left out) to `end`."""
    if start is None:
        return [end]
    steps = max(abs(end[0] - start[0]), abs(end[1] - start[1]), 1)
    return [
        (
            start[0] + round(step * (end[0] - start[0]) / steps),
            start[1] + round(step * (end[1] - start[1]) / steps),
        )
        for step in range(1, steps + 1)
    ]


def bar(share: float, width: int) -> str:
    """Return a bar of `width` characters, full at a share of 1."""
    eighths = round(8 * width * min(1.0, max(0.0, share if math.isfinite(share) else 0.0)))
    full, rest = divmod(eighths, 8)
    return ("█" * full + (_BAR[rest] if rest else "")).ljust(width)
