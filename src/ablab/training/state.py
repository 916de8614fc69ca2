"""Where a training run stands: everything beside weights and optimizer that a resume needs, as JSON.

There is no random state in it: every stream is a function of (seed, stream, step).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from ablab.contract.training import EarlyStopping
from ablab.training.retention import Index

Direction = Literal["lower", "higher"]


@dataclass(kw_only=True)
class Sums:
    """Sums over the steps since the last logged line, in fp64."""

    loss: float = 0.0
    weight: float = 0.0
    norm: float = 0.0
    steps: int = 0
    terms: dict[str, float] = field(default_factory=dict)


@dataclass(kw_only=True)
class TrainState:
    """Progress of a run after `step` updates.

    Args:
        tokens: target tokens (loss weight) learnt from, over all processes.
        validated: step of the last validation.
        last, best: newest values, and the best (value, step) of each metric.
        train_loss, train_terms: loss, and named terms, of the last logged line.
        waited: validations without improvement that counts; `reference` is the value to improve on.
        sums: the line being averaged.
        facts: what the first step told (parameters, logit scale), taken once.
    """

    step: int = 0
    tokens: float = 0.0
    validated: int = 0
    last: dict[str, float] = field(default_factory=dict)
    best: dict[str, tuple[float, int]] = field(default_factory=dict)
    train_loss: float | None = None
    train_terms: dict[str, float] = field(default_factory=dict)
    waited: int = 0
    reference: float | None = None
    stopped_early: bool = False
    sums: Sums = field(default_factory=Sums)
    index: Index = field(default_factory=Index)
    scaler: dict[str, Any] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return JSON values; floats keep every bit."""
        return asdict(self)

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> TrainState:
        """Read what `to_json` gave."""
        values = dict(content)
        values["best"] = {name: (value, step) for name, (value, step) in values["best"].items()}
        values["sums"] = Sums(**values["sums"])
        values["index"] = Index.from_json(values["index"])
        return cls(**values)

    def record(self, values: dict[str, float], directions: dict[str, Direction]) -> None:
        """Take in the values of a validation at this step; of equal values the earlier stays best."""
        self.validated = self.step
        self.last = dict(values)
        for name, value in values.items():
            seen = self.best.get(name)
            if seen is None or better(value, seen[0], directions[name]):
                self.best[name] = (value, self.step)

    def judge(self, rule: EarlyStopping, direction: Direction) -> None:
        """Count a validation towards early stopping (Prechelt 1998: patience on the last improvement)."""
        value = self.last[rule.metric]
        margin = -rule.minimum if direction == "lower" else rule.minimum
        if self.reference is None or better(value, self.reference + margin, direction):
            self.reference, self.waited = value, 0
            return
        self.waited += 1
        self.stopped_early = self.waited >= rule.patience


def better(value: float, than: float, direction: Direction) -> bool:
    """Whether a value beats another."""
    return value < than if direction == "lower" else value > than
