"""A comparison of two arms or runs as a document: what differs first, then numbers, then curves at equal steps."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from ablab.contract.units import figure, size
from ablab.report.compare import CurvePair, Estimate, MetricRow, PairView
from ablab.report.document import Block, Bullets, Document, Section, Text, table
from ablab.report.spark import sparkline
from ablab.report.table_text import plus_minus

if TYPE_CHECKING:
    from ablab.analysis.results import Curve

#: Steps a table of gaps shows, evenly chosen, the first and the last among them.
STEPS = 10
NOTHING = "—"


def document(view: PairView) -> Document:
    """Return the comparison as a document."""
    return Document(
        title=f"{view.b.name} against {view.a.name}",
        subtitle="Exploratory: this pair was chosen by looking. No criterion was stated before the runs, and no "
        "verdict follows.",
        sections=tuple(
            Section(id=name, title=title, blocks=tuple(blocks))
            for name, title, blocks in (
                ("cautions", "Beware", _cautions(view)),
                ("differences", "What differs", _differences(view)),
                ("metrics", "Metrics", _metrics(view)),
                ("curves", "Curves, and the gap at equal steps", _curves(view)),
                ("facts", "Size, time and memory", _facts(view)),
            )
            if blocks
        ),
    )


def _cautions(view: PairView) -> list[Block]:
    return [Bullets(items=view.warnings)] if view.warnings else []


def _differences(view: PairView) -> list[Block]:
    if not view.differences:
        return [Text(text="Nothing that can change a result.")]
    rows = [(each.path, shown(each.a), shown(each.b), each.kind) for each in view.differences]
    return [table(("path", view.a.name, view.b.name, "kind"), rows)]


def shown(value: object) -> str:
    """Return a parameter as a study would write it."""
    if value is None:
        return NOTHING
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(shown, value)) + "]"
    return str(value)


def _metrics(view: PairView) -> list[Block]:
    if not view.metrics:
        return [Text(text="The sides share no metric of a complete run.")]
    columns = ("metric", view.a.name, view.b.name, "B against A", "n")
    rows = [
        (f"{row.metric} {arrow(row.direction)}", _estimate(row.a), _estimate(row.b), _effect(row), _n(row))
        for row in view.metrics
    ]
    note = (
        "A is the left side, B the right. Means with half the 95 % Student interval over seeds; B against A over pairs "
        "of equal seeds, ratios on the log scale."
    )
    return [table(columns, rows, numeric=(1, 2, 3, 4)), Text(text=note)]


def arrow(direction: str) -> str:
    """Return which way is better as an arrow."""
    return "↓" if direction == "lower" else "↑"


def _estimate(found: Estimate | None) -> str:
    if found is None:
        return NOTHING
    half = None if found.low is None or found.high is None else (found.high - found.low) / 2
    mean, spread = plus_minus(found.mean, half)
    return f"{mean} ± {spread}" if spread else mean


def _effect(row: MetricRow) -> str:
    if row.effect is None:
        return NOTHING
    found = row.effect
    interval = "" if found.low is None or found.high is None else f" [{figure(found.low)}, {figure(found.high)}]"
    share = f" ({100 * (found.mean - 1):+.2f} %)" if row.quantity == "ratio" else ""
    return f"{row.quantity} {figure(found.mean)}{share}{interval}"


def _n(row: MetricRow) -> str:
    return str(row.effect.n if row.effect is not None else 0)


def _curves(view: PairView) -> list[Block]:
    blocks: list[Block] = []
    for pair in view.curves:
        blocks.append(Text(text=f"{pair.metric} {arrow(pair.direction)}", strong=True))
        blocks.append(table(("side", "curve, first to last step", "first", "last"), list(_lines(view, pair))))
        steps = _shared_steps(pair)
        if steps:
            columns = ("step", view.a.name, view.b.name, f"{pair.quantity} of B to A", "pairs")
            blocks.append(table(columns, [_gap_row(pair, step) for step in steps], numeric=range(5)))
        else:
            blocks.append(Text(text="No step was logged on both sides, so there is no gap."))
    return blocks


def _lines(view: PairView, pair: CurvePair) -> list[tuple[str, str, str, str]]:
    curves = [(side.name, label, curve) for side, found in ((view.a, pair.a), (view.b, pair.b))
              for label, curve in found.items()]  # fmt: skip
    values = [value for _, _, curve in curves for value in curve.values if math.isfinite(value)]
    limits = (min(values), max(values)) if values else None
    return [
        (
            f"{name}, {label}",
            sparkline(curve.values, width=32, limits=limits),
            f"{figure(curve.values[0])} @{curve.steps[0]}",
            f"{figure(curve.values[-1])} @{curve.steps[-1]}",
        )
        for name, label, curve in curves
        if curve.steps
    ]


def _shared_steps(pair: CurvePair) -> list[int]:
    """Return steps at which at least one pair has a gap, thinned evenly to `STEPS`."""
    steps = sorted({step for gap in pair.gaps.values() for step in gap.steps})
    if len(steps) <= STEPS:
        return steps
    return [steps[round(place * (len(steps) - 1) / (STEPS - 1))] for place in range(STEPS)]


def _gap_row(pair: CurvePair, step: int) -> tuple[str, ...]:
    """Return means over the pairs that have this very step on both sides, and their gap."""
    labels = [label for label, gap in pair.gaps.items() if step in gap.steps]
    gaps = [pair.gaps[label].values[pair.gaps[label].steps.index(step)] for label in labels]
    if pair.quantity == "ratio":
        mean = math.exp(math.fsum(map(math.log, gaps)) / len(gaps))
    else:
        mean = math.fsum(gaps) / len(gaps)
    spread = f" ({figure(min(gaps))} to {figure(max(gaps))})" if len(gaps) > 1 else ""
    sides = [_mean_at(found, labels, step) for found in (pair.a, pair.b)]
    return (str(step), *(figure(value) for value in sides), f"{figure(mean)}{spread}", str(len(gaps)))


def _mean_at(curves: Mapping[str, Curve], labels: Sequence[str], step: int) -> float:
    values = [value for label in labels if (value := curves[label].at_step(step)) is not None]
    return math.fsum(values) / len(values)


def _facts(view: PairView) -> list[Block]:
    rows = []
    for fact in view.facts:
        write = size if fact.name == "peak bytes" else figure
        rows.append((fact.name, write(fact.a), write(fact.b)))
    return [table(("what", view.a.name, view.b.name), rows, numeric=(1, 2))] if rows else []
