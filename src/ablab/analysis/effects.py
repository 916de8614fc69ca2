"""What a condition of a criterion compares: pairs by seed, and the sample its test is made on.

`ratio <= 1.05` becomes log(variant / baseline) against log 1.05; `difference` and `value` stay linear. An arm without
randomness is one number that pairs with every seed of the other. Which interval is drawn and what is concluded
belongs to `verdicts`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from ablab.analysis.intervals import Sample, log_ratios, same
from ablab.analysis.results import At, Results
from ablab.study.schema import Comparison, Condition

#: Why there is nothing to test.
Problem = Literal["no-values", "not-positive", "not-finite"]
#: Failures that depend on how an arm behaves: leaving such a seed out would favour the arm.
TELLING_FAILURES = ("not-finite",)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """Two arms at one seed. `seed` is None where neither depends on it; `baseline` is None for a plain value.

    `effect` is on the condition's own scale: a ratio, a difference or a value; None for a ratio that has no meaning.
    """

    seed: int | None
    baseline: float | None
    variant: float
    effect: float | None


@dataclass(frozen=True, kw_only=True)
class ArmValues:
    """Complete values of one metric of one arm.

    Args:
        constant: the value does not depend on the seed, so that one value stands for all.
        missing: seeds asked for and not there.
        diverged: missing seeds whose run ended in a loss that is not finite.
    """

    experiment: str
    values: Mapping[int, float]
    constant: bool
    missing: tuple[int, ...] = ()
    diverged: tuple[int, ...] = ()
    keys: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Effect:
    """The evidence for one condition of one variant.

    Args:
        sample: on the scale of the test (log for ratios); None where there is nothing to test, and `problem` says why.
        margin: the criterion's number on that scale.
        missing: seeds without a value, by experiment.
        diverged: seeds that ended in a loss that is not finite, by experiment.
        keys: runs the values come from.
    """

    condition: Condition
    variant: str
    metric: str
    at: At
    pairs: tuple[Pair, ...] = ()
    sample: Sample | None = None
    margin: float | None = None
    code: Problem = "no-values"
    problem: str = ""
    missing: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    diverged: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    keys: tuple[str, ...] = ()

    def shown(self, number: float) -> float:
        """Return a number of the test's scale on the condition's own scale."""
        return math.exp(number) if self.condition.quantity == "ratio" else number

    def p_values(self) -> tuple[float, float]:
        """Return one-sided p of (criterion satisfied, criterion not satisfied); small means shown.

        What a diverged seed would have weakened counts as not shown: "satisfied" where the variant lost one, "not
        satisfied" where its baseline did.
        """
        met, not_met = self._raw_p_values()
        lost = set(self.diverged)
        return (1.0 if self.variant in lost else met), (1.0 if lost - {self.variant} else not_met)

    def _raw_p_values(self) -> tuple[float, float]:
        """Return both p-values of the sample at hand, whatever is missing from it."""
        if self.sample is None or self.margin is None:
            return 1.0, 1.0
        below, above = self.sample.p_below(self.margin), self.sample.p_above(self.margin)
        if self.sample.sd == 0 and same(self.sample.mean, self.margin):
            # A constant on the margin satisfies <= and >=, and does not satisfy < and >.
            below, above = (0.0, 1.0) if self.condition.operator in ("<=", ">") else (1.0, 0.0)
        return (below, above) if self.condition.operator in ("<=", "<") else (above, below)


def metric_and_checkpoint(metric: str, at: At) -> tuple[str, At]:
    """Split `val/perplexity@best` into its name and which value counts; without a mark the comparison's `at` does."""
    name, mark, which = metric.rpartition("@")
    if mark and which in ("last", "best"):
        return name, "best" if which == "best" else "last"
    return metric, at


def arm_values(results: Results, experiment: str, metric: str, at: At) -> ArmValues:
    """Return the complete values of an arm with what is missing and why."""
    seeds = results.seeds(experiment)
    values = results.values(experiment, metric, at)
    arms = {seed: results.arm(experiment, seed) for seed in seeds}
    constant = bool(values) and all(
        metric not in arm.seeded for seed, arm in arms.items() if arm is not None and seed in values
    )
    missing = () if constant else tuple(seed for seed in seeds if seed not in values)
    diverged = tuple(seed for seed in missing if (arm := arms[seed]) is not None and arm.failure in TELLING_FAILURES)
    found = (results.value(experiment, seed, metric) for seed in values)
    keys = tuple(dict.fromkeys(value.key for value in found if value is not None and value.key))
    return ArmValues(
        experiment=experiment, values=values, constant=constant, missing=missing, diverged=diverged, keys=keys
    )


def effect(results: Results, comparison: Comparison, variant: str, condition: Condition) -> Effect:
    """Return pairs, sample and margin of one condition of one variant (or control)."""
    metric, at = metric_and_checkpoint(condition.metric, comparison.at)
    theirs = arm_values(results, variant, metric, at)
    arms = [theirs]
    if condition.quantity == "value":
        pairs = tuple(Pair(seed=seed, baseline=None, variant=v, effect=v) for seed, v in _own(theirs))
    else:
        base = arm_values(results, comparison.baseline, metric, at)
        arms = [base, theirs]
        pairs = tuple(_pair(condition, *pair) for pair in _paired(base, theirs))
    sample, margin, code, problem = _sample(condition, pairs, constant=all(arm.constant for arm in arms))
    return Effect(
        condition=condition,
        variant=variant,
        metric=metric,
        at=at,
        pairs=pairs,
        sample=sample,
        margin=margin,
        code=code,
        problem=problem,
        missing={arm.experiment: arm.missing for arm in arms if arm.missing},
        diverged={arm.experiment: arm.diverged for arm in arms if arm.diverged},
        keys=tuple(dict.fromkeys(key for arm in arms for key in arm.keys)),
    )


def _own(arm: ArmValues) -> list[tuple[int | None, float]]:
    """Return an arm's values by seed, a constant once without one."""
    if arm.constant:
        return [(None, next(iter(arm.values.values())))]
    return list(arm.values.items())


def _paired(base: ArmValues, variant: ArmValues) -> Iterable[tuple[int | None, float, float]]:
    """Yield (seed, baseline, variant); a constant pairs with every seed of the other arm."""
    if not base.values or not variant.values:
        return []
    if base.constant or variant.constant:
        left, right = _own(base), _own(variant)
        if base.constant:
            return [(seed, left[0][1], value) for seed, value in right]
        return [(seed, value, right[0][1]) for seed, value in left]
    return [(seed, value, variant.values[seed]) for seed, value in base.values.items() if seed in variant.values]


def _pair(condition: Condition, seed: int | None, baseline: float, variant: float) -> Pair:
    """Return one pair with its effect on the condition's own scale."""
    if condition.quantity == "ratio":
        value = variant / baseline if baseline > 0 and variant > 0 else None
    else:
        value = variant - baseline
    return Pair(seed=seed, baseline=baseline, variant=variant, effect=value)


def _sample(
    condition: Condition, pairs: tuple[Pair, ...], *, constant: bool
) -> tuple[Sample | None, float | None, Problem, str]:
    """Return (sample, margin, code, problem) of the pairs of a condition."""
    if not pairs:
        return None, None, "no-values", f"no seed has a complete value of {condition.metric} in both arms"
    numbers = [number for pair in pairs for number in (pair.baseline, pair.variant) if number is not None]
    if not all(map(math.isfinite, numbers)):
        return None, None, "not-finite", f"a value of {condition.metric} is not a finite number"
    if condition.quantity != "ratio":
        values = tuple(pair.effect for pair in pairs if pair.effect is not None)
        return Sample(values=values, constant=constant), condition.number, "no-values", ""
    if condition.number <= 0 or min(numbers) <= 0:
        what = "the criterion's number" if condition.number <= 0 else f"a value of {condition.metric}"
        return None, None, "not-positive", f"{what} is not positive, so its ratio has no meaning on the log scale"
    logs = log_ratios([(pair.baseline or 0.0, pair.variant) for pair in pairs])
    return Sample(values=logs, constant=constant), math.log(condition.number), "no-values", ""
