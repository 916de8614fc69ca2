"""Figures as plain numbers a template can place: strips of points and intervals, lines with bands, bars, histograms.

Positions are percents of a width or pixels of a fixed drawing; colours are classes, so that light, dark and print are
the style sheet's. What a script draws later shows the same data.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from ablab.contract.units import figure
from ablab.report.document import Answer, Bars, Chart, Histogram, Line, Side
from ablab.report.scales import Scale, covering

#: Arms of a drawn chart; the reader's browser lets him choose others.
ARMS = 8
#: Size of the drawing that stands where no script runs, and its margins.
WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 720, 320, 58, 130, 12, 40
_GRID = 80


@dataclass(frozen=True, kw_only=True)
class Tick:
    """A mark of an axis: where (percent or pixels) and what it says; `anchor` keeps its text inside the figure."""

    at: float
    text: str
    anchor: str = "middle"


@dataclass(frozen=True, kw_only=True)
class Strip:
    """One arm on a shared axis; positions in percent. `cut_low` and `cut_high`: the interval goes on beyond the end."""

    points: tuple[float, ...]
    centre: float | None
    low: float | None
    high: float | None
    cut_low: bool = False
    cut_high: bool = False


@dataclass(frozen=True, kw_only=True)
class Forest:
    """Arms on one axis: a strip each, the margin, the side that satisfies it, ticks."""

    strips: tuple[Strip, ...]
    ticks: tuple[Tick, ...]
    margin: float | None
    neutral: float | None
    shade: tuple[float, float] | None


def forest(
    answers: Sequence[Answer], *, margin: float | None, neutral: float | None, holds: Side = "", log: bool = False
) -> Forest:
    """Lay arms out on one axis.

    The axis covers all points, the margin and where nothing differs; an interval that is much wider is cut there, so
    that one arm of few seeds does not flatten all others.
    """
    core = [value for answer in answers for value in (*answer.values, answer.point)]
    base = covering([*core, margin, neutral], log=log, pad=0.6)
    ends = [end for answer in answers for end in (answer.low, answer.high) if end is not None and base.holds(end)]
    scale = covering([*core, margin, neutral, *ends], log=log, pad=0.08)

    def at(value: float | None) -> float | None:
        return None if value is None else round(100 * scale.share(value), 2)

    strips = tuple(
        Strip(
            points=tuple(round(100 * scale.share(value), 2) for value in answer.values),
            centre=at(answer.point),
            low=at(answer.low),
            high=at(answer.high),
            cut_low=answer.low is not None and answer.low < scale.low,
            cut_high=answer.high is not None and answer.high > scale.high,
        )
        for answer in answers
    )
    line = at(margin)
    shade = None
    if line is not None and holds:
        shade = (0.0, line) if holds == "below" else (line, round(100 - line, 2))
    return Forest(
        strips=strips,
        ticks=tuple(_tick(100 * scale.share(value), value, 100.0) for value in scale.ticks(5)),
        margin=line,
        neutral=at(neutral),
        shade=shade,
    )


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """A line of one arm with the band of its seeds, as SVG paths; `place` is its colour, `label` its name's height."""

    arm: str
    place: int
    path: str
    band: str
    label: float


@dataclass(frozen=True, kw_only=True)
class Lines:
    """A chart drawn in a fixed size; `left_out` arms are not in it."""

    drawn: tuple[Drawn, ...]
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    rule: float | None
    left_out: int
    right: float = WIDTH - RIGHT
    bottom: float = HEIGHT - BOTTOM


def lines(chart: Chart) -> Lines:
    """Draw the first arms of a chart: the mean over seeds as a line, lowest to highest as a band."""
    arms = by_arm(chart.lines)
    chosen = list(arms.items())[:ARMS]
    grids = {arm: _band(members) for arm, members in chosen}
    xs = covering((x for grid in grids.values() for x, *_ in grid), pad=0.0)
    values = [value for grid in grids.values() for _, *row in grid for value in row]
    ys = covering([*values, chart.rule], log=chart.log_y)

    def px(x: float) -> float:
        return round(LEFT + xs.share(x) * (WIDTH - LEFT - RIGHT), 1)

    def py(y: float) -> float:
        return round(TOP + (1 - ys.share(y)) * (HEIGHT - TOP - BOTTOM), 1)

    labels = _spread([py(grid[-1][1]) if grid else 0.0 for grid in grids.values()])
    drawn = []
    for place, (arm, grid) in enumerate(grids.items()):
        band = ""
        if len(arms[arm]) > 1 and grid:
            upper = [f"{px(x)},{py(high)}" for x, _, _, high in grid]
            lower = [f"{px(x)},{py(low)}" for x, _, low, _ in reversed(grid)]
            band = "M" + "L".join([*upper, *lower]) + "Z"
        path = "M" + "L".join(f"{px(x)},{py(mean)}" for x, mean, _, _ in grid) if grid else ""
        drawn.append(Drawn(arm=arm, place=place, path=path, band=band, label=labels[place]))
    return Lines(
        drawn=tuple(drawn),
        x_ticks=tuple(Tick(at=px(value), text=figure(value)) for value in xs.ticks(6)),
        y_ticks=tuple(Tick(at=py(value), text=figure(value)) for value in ys.ticks(6)),
        rule=None if chart.rule is None else py(chart.rule),
        left_out=len(arms) - len(chosen),
    )


def by_arm(found: Sequence[Line]) -> dict[str, list[Line]]:
    """Return lines by arm, in the order they are met; lines without points are left out."""
    arms: dict[str, list[Line]] = {}
    for line in found:
        if line.points:
            arms.setdefault(line.arm, []).append(line)
    return arms


def _band(members: list[Line]) -> list[tuple[float, float, float, float]]:
    """Return (x, mean, lowest, highest) over the seeds of an arm, at x that all of them reach."""
    finite = [[(x, y) for x, y in line.points if y is not None] for line in members]
    finite = [points for points in finite if points]
    if not finite:
        return []
    low, high = max(points[0][0] for points in finite), min(points[-1][0] for points in finite)
    inside = sorted({x for points in finite for x, _ in points if low <= x <= high})
    grid = (
        inside if len(inside) <= _GRID else [inside[round(i * (len(inside) - 1) / (_GRID - 1))] for i in range(_GRID)]
    )
    columns = [_at(points, grid) for points in finite]
    return [
        (x, sum(row) / len(row), min(row), max(row)) for x, row in zip(grid, zip(*columns, strict=True), strict=True)
    ]


def _at(points: list[tuple[float, float]], grid: list[float]) -> list[float]:
    """Return the values of a line at the x of a grid, straight between its points."""
    found, place = [], 0
    for x in grid:
        while place + 1 < len(points) and points[place + 1][0] <= x:
            place += 1
        x0, y0 = points[place]
        if x <= x0 or place + 1 == len(points):
            found.append(y0)
            continue
        x1, y1 = points[place + 1]
        found.append(y0 + (y1 - y0) * (x - x0) / (x1 - x0))
    return found


def _spread(places: list[float], gap: float = 13.0) -> list[float]:
    """Return label positions moved apart so that none covers another."""
    order = sorted(range(len(places)), key=places.__getitem__)
    moved = list(places)
    for before, after in pairwise(order):
        moved[after] = max(moved[after], moved[before] + gap)
    # What does not fit at the bottom moves up, and pushes only what it meets.
    limit = float(HEIGHT - BOTTOM)
    for place in reversed(order):
        moved[place] = min(moved[place], limit)
        limit -= gap
    return [round(place, 1) for place in moved]


@dataclass(frozen=True, kw_only=True)
class Stack:
    """A stacked bar: (place of the part, from, width in percent, what it says) for each part."""

    name: str
    total: str
    parts: tuple[tuple[int, float, float, str], ...]


def stacks(bars: Bars) -> tuple[Stack, ...]:
    """Lay stacked bars out; the longest is as long as there is room for."""
    longest = max((sum(values) for _, values, _ in bars.rows), default=0.0) or 1.0
    found = []
    for name, values, total in bars.rows:
        at, parts = 0.0, []
        for place, value in enumerate(values):
            width = 100 * value / longest
            if width > 0:
                share = value / sum(values)
                said = f"{bars.parts[place]}: {figure(value, digits=3)} {bars.unit} ({100 * share:.0f} %)"
                parts.append((place, round(at, 3), round(width, 3), said))
            at += width
        found.append(Stack(name=name, total=total, parts=tuple(parts)))
    return tuple(found)


@dataclass(frozen=True, kw_only=True)
class Bins:
    """A histogram: (from, width, height in percent, what it says) for each bin; ticks of both axes."""

    bins: tuple[tuple[float, float, float, str], ...]
    ticks: tuple[Tick, ...]
    top: str


def bins(histogram: Histogram) -> Bins:
    """Lay a histogram out; one whose edges do not fit its counts has no bins."""
    edges, counts = histogram.edges, histogram.counts
    if len(edges) != len(counts) + 1 or not counts or edges[-1] <= edges[0]:
        return Bins(bins=(), ticks=(), top="")
    scale = Scale(low=edges[0], high=edges[-1])
    most = max(counts) or 1
    found = []
    for low, high, count in zip(edges, edges[1:], counts, strict=False):
        at, width = 100 * scale.share(low), 100 * (scale.share(high) - scale.share(low))
        said = f"{figure(low)} – {figure(high)}: {count:,}"
        found.append((round(at, 3), round(width, 3), round(100 * count / most, 3), said))
    ticks = tuple(_tick(100 * scale.share(value), value, 100.0) for value in scale.ticks(6))
    return Bins(bins=tuple(found), ticks=ticks, top=f"{most:,}")


def _tick(at: float, value: float, whole: float) -> Tick:
    anchor = "start" if at < 0.03 * whole else "end" if at > 0.97 * whole else "middle"
    return Tick(at=round(at, 2), text=figure(value), anchor=anchor)
