"""Which of several arms is best, where the seeds support saying so.

An arm leads when the paired Student interval of its difference to every other arm leaves "no difference" out. That is
an intersection of tests, so it needs no correction for their number; it is stricter than beating the next arm alone,
since a noisy third arm may be as good. One random seed supports nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from ablab.analysis.effects import effect
from ablab.analysis.results import At, Results
from ablab.study.schema import Comparison, Condition, Criterion, Operator

Direction = Literal["lower", "higher"]


def leader(
    results: Results,
    arms: Sequence[str],
    metric: str,
    *,
    at: At = "last",
    direction: Direction = "lower",
    confidence: float = 0.95,
) -> str | None:
    """Return the arm that is better than every other with a complete value of the metric; None where none is.

    Args:
        results: values of all arms.
        arms: the arms that are compared; those without a value do not take part.
        metric: its name, without a mark.
        at: which value counts.
        direction: which way is better.
        confidence: two-sided level of each paired interval.
    """
    means = {}
    for name in dict.fromkeys(arms):
        values = results.values(name, metric, at)
        if values:
            means[name] = sum(values.values()) / len(values)
    if len(means) < 2:
        return None
    best = (min if direction == "lower" else max)(means, key=lambda name: means[name])
    others = [name for name in means if name != best]
    if all(
        is_better(results, best, other, metric, at=at, direction=direction, confidence=confidence) for other in others
    ):
        return best
    return None


def is_better(
    results: Results,
    arm: str,
    other: str,
    metric: str,
    *,
    at: At = "last",
    direction: Direction = "lower",
    confidence: float = 0.95,
) -> bool:
    """Tell whether the paired interval between two arms shows the first to be better.

    Ratios are compared on the log scale where every value is positive, differences elsewhere; seeds that diverged
    count against the arm that lost them, as in a verdict.
    """
    numbers = [value for name in (arm, other) for value in results.values(name, metric, at).values()]
    ratio = bool(numbers) and min(numbers) > 0
    operator: Operator = "<" if direction == "lower" else ">"
    condition = Condition(
        metric=metric, quantity="ratio" if ratio else "difference", operator=operator, number=1.0 if ratio else 0.0
    )
    pair = Comparison(
        name="",
        baseline=other,
        variants=(arm,),
        factor=(),
        metric=metric,
        criterion=Criterion(text="", conditions=(condition,)),
        at=at,
        confidence=confidence,
        exploratory=True,
    )
    shown, _ = effect(results, pair, arm, condition).p_values()
    return 2 * shown < 1 - confidence
