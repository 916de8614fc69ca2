"""Verdicts as data: what is known about a condition, a variant, a control and a comparison.

`verdicts.judge` makes them. A report translates by `code`; `reason` and `text` are the English sentences.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from ablab.analysis.effects import Pair
from ablab.analysis.results import At

Verdict = Literal["met", "not met", "undecided"]

#: Why a verdict is what it is; stable, for translation.
Code = Literal[
    "interval",  # the whole interval lies on one side of the margin
    "constant",  # nothing is random: the numbers themselves decide
    "includes-margin",  # the interval includes the margin
    "on-margin",  # the estimate is the margin itself
    "one-seed",  # one random value has no interval
    "holm-stopped",  # an earlier variant of the comparison is undecided
    "no-values",  # nothing to compare yet
    "planned",  # an arm is shown and never started
    "not-positive",  # a ratio of a value <= 0
    "not-finite",  # a value is not a number
    "diverged",  # a seed ended in a loss that is not finite
    "not-sensitive",  # a control is not told apart
    "control-pending",  # a control has no verdict yet
    "exploratory",  # the comparison has no criterion and is shown without a verdict
]


@dataclass(frozen=True, kw_only=True)
class ConditionVerdict:
    """One condition of the criterion for one variant.

    Args:
        text: the condition as written, for example `val/perplexity ratio <= 1.05`; without a criterion what is shown,
            `val/perplexity ratio`.
        point, low, high: estimate and interval on the condition's own scale; low and high None without interval.
        level: confidence of the interval (0 to 1), that of the variant's Holm step.
        n: independent values behind it.
        sd: standard deviation on the scale of the test (of log ratios for a ratio).
        pairs: every point, by seed.
        p: one-sided p against the margin in the direction of the estimate.
        seeds_needed: seeds whose expected interval leaves the margin out; None when decided, or beyond the cap.
    """

    metric: str
    at: At
    text: str
    quantity: str
    operator: str
    number: float
    verdict: Verdict
    code: Code
    reason: str
    point: float | None = None
    low: float | None = None
    high: float | None = None
    level: float | None = None
    n: int = 0
    sd: float | None = None
    pairs: tuple[Pair, ...] = ()
    p: float | None = None
    p_met: float = 1.0
    p_not_met: float = 1.0
    seeds_needed: int | None = None


@dataclass(frozen=True, kw_only=True)
class VariantVerdict:
    """One variant (or control) against the baseline.

    Args:
        rank, level: its Holm rank (1 = smallest p) and the confidence its intervals are drawn at.
        seeds: seeds the verdict rests on.
        missing: seeds asked for and absent, by experiment; with any, the verdict is provisional.
        seeds_needed: seeds in all that would decide it, at the spread and the estimate seen.
        caveats: differences from the baseline outside the factor, declared by the study.
    """

    experiment: str
    verdict: Verdict
    code: Code
    reason: str
    conditions: tuple[ConditionVerdict, ...]
    p: float = 1.0
    rank: int | None = None
    level: float | None = None
    seeds: tuple[int, ...] = ()
    missing: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    seeds_needed: int | None = None
    caveats: tuple[str, ...] = ()
    keys: tuple[str, ...] = ()

    @property
    def provisional(self) -> bool:
        """Whether seeds are missing, so that the verdict may still change."""
        return bool(self.missing)


@dataclass(frozen=True, kw_only=True)
class ControlVerdict:
    """A control: an arm that must fail or must pass for the comparison to count.

    `told` says whether it did what it must; None while that is unknown.
    """

    experiment: str
    expected: Literal["fail", "pass"]
    told: bool | None
    verdict: VariantVerdict
    text: str


@dataclass(frozen=True, kw_only=True)
class ComparisonVerdict:
    """A whole comparison.

    Args:
        sensitive: True when every control did what it must, False when one did not, None without controls or while
            one is pending.
        caveats: declared differences of any variant.
        text: the verdict in a sentence or two.
    """

    comparison: str
    baseline: str
    metric: str
    criterion: str
    at: At
    confidence: float
    variants: tuple[VariantVerdict, ...]
    controls: tuple[ControlVerdict, ...] = ()
    sensitive: bool | None = None
    exploratory: bool = False
    caveats: tuple[str, ...] = ()
    text: str = ""

    def variant(self, experiment: str) -> VariantVerdict:
        """Return the verdict of one variant; KeyError when the comparison has none of that name."""
        for variant in self.variants:
            if variant.experiment == experiment:
                return variant
        raise KeyError(experiment)

    def as_dict(self) -> dict[str, Any]:
        """Return the verdict as plain data for JSON."""
        return asdict(self)
