"""Training that a named device does not hold is told beforehand, and what fits stays silent."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

IDS = {"memory-exceeds-device", "memory-tight"}
ARMS = """
experiments:
  A: {}
  B: {like: A, model: {dropout: 0.0}}
"""


def findings(made: Any) -> list[Any]:
    return [each for each in made.findings() if each.id in IDS]


def device(memory: str) -> str:
    return f"compute: {{device: {{name: toy, memory: {memory}}}}}\n"


@pytest.mark.parametrize(
    ("memory", "id", "severity"),
    [("15 MB", "memory-exceeds-device", "error"), ("17 MB", "memory-tight", "warning"), ("32 MB", None, None)],
)
def test_counts_of_a_probe_are_held_against_the_device(
    bench: Callable[..., Any], memory: str, id: str | None, severity: str | None
) -> None:
    made = bench(device(memory) + ARMS)
    # 1,000,000 parameters that all train: 4 bytes of weight, 12 of gradient and moments each.
    for name in ("A", "B"):
        made.probe(name, {"parameters.total": 1_000_000, "parameters.trained": 1_000_000})
    found = findings(made)
    assert [(each.id, each.severity) for each in found] == ([] if id is None else [(id, severity)])
    assert all(set(each.subjects) == {"A", "B"} and each.evidence["bytes"] == 16_000_000 for each in found)


def test_frozen_parameters_weigh_their_weights_alone(bench: Callable[..., Any]) -> None:
    made = bench(device("15 MB") + ARMS)
    for name in ("A", "B"):
        made.probe(name, {"parameters.total": 1_000_000, "parameters.trained": 100_000})
    assert findings(made) == []


def test_what_is_not_known_is_said(bench: Callable[..., Any]) -> None:
    (found,) = findings(bench(device("15 MB") + ARMS))
    assert not found.checked and "toy" in found.message and found.subjects == ("A", "B")


def test_without_a_named_device_nothing_is_asked(bench: Callable[..., Any]) -> None:
    assert findings(bench(ARMS)) == []
