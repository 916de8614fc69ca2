"""Ablation decomposition: how the way from the baseline to an arm divides over the arms between them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ablab.report.document import Block, Cell, Heading, Text, table

if TYPE_CHECKING:
    from ablab.analysis.decomposition import Decomposition, Part
    from ablab.analysis.judgement import ComparisonVerdict
    from ablab.report.view import View
    from ablab.study.schema import Comparison

#: Ways and pairs shown of a comparison with many arms.
_MOST = 12


def blocks(view: View, verdict: ComparisonVerdict) -> Iterator[Block]:
    """Yield the decomposition of one comparison; nothing where it has fewer than two arms with values."""
    from ablab.analysis.decomposition import pairwise_effects

    t = view.t
    comparison = next(item for item in view.study.comparisons if item.name == verdict.comparison)
    if len(comparison.variants) < 2:
        return
    found = ways(view, comparison)
    pairs = pairwise_effects(view.results, comparison, most=_MOST)
    if not found and len(pairs) < 2:
        return
    yield Heading(text=t("Decomposition"), level=4)
    rows: list[tuple[Cell | str, ...]] = []
    for way in found:
        rows.append((Cell(text=" → ".join(way.path)), *_numbers(view, way.whole, way.quantity), "100 %"))
        rows += [
            (f"{part.start} → {part.to}", *_numbers(view, part, way.quantity), t.percent(part.share))
            for part in way.parts
        ]
    if rows:
        yield table(
            _columns(view), rows, caption=t("Ways over nested arms, and what each step adds"), numeric=(1, 2, 3, 4)
        )
        yield Text(
            text=t("Ratios add on the log scale. No share is given where the whole way cannot be told from nothing."),
            small=True,
        )
    elif pairs:
        quantity = _quantity(comparison)
        rows = [(f"{part.start} → {part.to}", *_numbers(view, part, quantity)) for part in pairs]
        yield table(_columns(view)[:-1], rows, caption=t("Steps between arms, exploratory"), numeric=(1, 2, 3))


def ways(view: View, comparison: Comparison) -> list[Decomposition]:
    """Return the ways from the baseline over arms whose differences from it contain each other, longest first."""
    from ablab.analysis.decomposition import decompose
    from ablab.analysis.effects import metric_and_checkpoint
    from ablab.study.differences import differences

    study = view.study
    base = study.experiments[comparison.baseline]
    changed = {
        name: {(path, str(theirs)) for path, (_, theirs) in differences(base, study.experiments[name]).items()}
        for name in comparison.variants
    }
    metric, at = metric_and_checkpoint(comparison.metric, comparison.at)
    found = []
    for chain in _chains(changed):
        way = decompose(
            view.results,
            (comparison.baseline, *chain),
            metric=metric,
            quantity=_quantity(comparison),
            at=at,
            confidence=comparison.confidence,
        )
        if way is not None:
            found.append(way)
    return found[:_MOST]


def _chains(changed: dict[str, set[tuple[str, str]]]) -> list[list[str]]:
    """Return, for every arm that contains others, the longest chain of arms contained in each other that ends in it."""
    longest: dict[str, list[str]] = {}
    for name in sorted(changed, key=lambda arm: len(changed[arm])):
        before = [longest[other] for other in longest if changed[other] and changed[other] < changed[name]]
        longest[name] = [*max(before, key=len, default=[]), name]
    inner = {arm for chain in longest.values() for arm in chain[:-1]}
    ends = [chain for name, chain in longest.items() if len(chain) > 1 and name not in inner]
    return sorted(ends, key=len, reverse=True)


def _numbers(view: View, part: Part, quantity: str) -> tuple[str, str, str]:
    t = view.t
    effect = t.figure(part.effect)
    if quantity == "ratio":
        effect = f"× {effect} ({t.signed(100 * (part.effect - 1))} %)"
    interval = "—" if part.low is None or part.high is None else f"{t.figure(part.low)} – {t.figure(part.high)}"
    return effect, interval, str(part.n)


def _columns(view: View) -> tuple[str, ...]:
    t = view.t
    return (t("way"), t("effect"), t("interval"), t("n"), t("share of the way"))


def _quantity(comparison: Comparison) -> str:
    name = comparison.metric.partition("@")[0]
    conditions = [c for c in comparison.criterion.conditions if c.metric.partition("@")[0] == name]
    return "difference" if any(c.quantity == "difference" for c in conditions) else "ratio"
