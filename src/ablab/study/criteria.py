"""The grammar of a criterion: `[metric] ratio|difference|value OP number`, several joined by `and`."""

from __future__ import annotations

import math
import re
from typing import cast

from ablab.study.problems import nearest
from ablab.study.schema import Condition, Criterion, Operator, Quantity

GRAMMAR = "[metric] ratio|difference|value <=|<|>=|> number, joined by `and`; for example: ratio <= 1.05"

_QUANTITIES = ("ratio", "difference", "value")
_CONDITION = re.compile(r"(?:(?P<metric>\S+)\s+)?(?P<quantity>[A-Za-z]+)\s*(?P<operator>[<>=!]+)\s*(?P<number>\S+)")


class CriterionError(ValueError):
    """A criterion that does not follow the grammar; `suggestion` is the nearest valid word."""

    def __init__(self, message: str, suggestion: str | None = None) -> None:
        super().__init__(message)
        self.suggestion = suggestion


def parse_criterion(text: str, *, metric: str | None) -> Criterion:
    """Parse a criterion.

    Args:
        text: as the study writes it.
        metric: the comparison's metric, for conditions that name none.

    Raises:
        CriterionError: what is wrong, and the grammar.
    """
    parts = re.split(r"\s+and\s+", text.strip())
    return Criterion(text=text.strip(), conditions=tuple(_condition(part, metric) for part in parts))


def _condition(text: str, metric: str | None) -> Condition:
    match = _CONDITION.fullmatch(text)
    if match is None:
        raise CriterionError(f"{text!r} is no condition; expected {GRAMMAR}")
    if match["quantity"] not in _QUANTITIES:
        near = nearest(match["quantity"], _QUANTITIES)
        raise CriterionError(f"{match['quantity']!r} is no quantity: ratio, difference or value", near)
    if match["operator"] not in ("<=", "<", ">=", ">"):
        raise CriterionError(f"{match['operator']!r} is no operator: <=, <, >= or >")
    named = match["metric"] or metric
    if named is None:
        raise CriterionError(f"{text!r} names no metric, and the comparison has no `metric:`")
    return Condition(
        metric=named,
        quantity=cast(Quantity, match["quantity"]),
        operator=cast(Operator, match["operator"]),
        number=_number(match["number"]),
    )


def _number(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise CriterionError(f"{text!r} is no finite number")
    return number
