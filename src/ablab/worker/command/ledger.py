"""What a program tells, kept as events and state while it runs, and summed up when it has ended.

Values that belong to training (train/..., lr, grad_norm) become `step` events, all others `validation` events. A
resumed attempt says where it resumed once the program tells its first step: one before it; what was told up to there
is then told again, so that nothing is missing that a kill kept from being logged.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from ablab.contract.context import Context
from ablab.contract.result import Best
from ablab.store.events import read_events
from ablab.store.layout import RunFolder
from ablab.worker.command.readings import Reading

#: Metric name to the key a `step` event has for it.
_TRAINING = {
    "train/loss": "loss",
    "learning_rate": "lr",
    "lr": "lr",
    "grad_norm": "grad_norm",
    "tokens": "tokens",
    "epoch": "epoch",
}
#: Keys of a `step` event that are told under their own name, the loss under train/loss.
_NOT_VALUES = frozenset({"e", "t", "step", "attempt"})

Direction = Callable[[str], Literal["lower", "higher"]]


@dataclass(kw_only=True)
class Summary:
    """Last values, best values, and steps of a run over all its attempts."""

    last: dict[str, float] = field(default_factory=dict)
    best: dict[str, Best] = field(default_factory=dict)
    steps: int = 0


class Ledger:
    """Takes readings of one attempt.

    Args:
        context: the worker.
        before: what earlier attempts told, where the program goes on from one of them; None where it begins anew.
        steps: steps it will take; 0 where nobody knows.
        direction: which way a metric is better.
    """

    def __init__(self, context: Context, *, before: Sequence[Reading] | None, steps: int, direction: Direction) -> None:
        self._context, self._steps, self._direction = context, steps, direction
        self._before = before
        self.told = False
        self._step = 0
        self._last: dict[str, float] = {}
        self._best: dict[str, float] = {}
        self._clock: tuple[float, int] | None = None
        if before is None:
            context.event("start", step=0)
        context.state(steps=steps)

    def take(self, readings: Iterable[Reading]) -> None:
        """Log readings, oldest first."""
        for reading in readings:
            self._begin(None if reading.step is None else reading.step - 1)
            self.told = True
            self._step = max(self._step if reading.step is None else reading.step, 0)
            self._log(self._step, reading.values)

    def close(self) -> None:
        """Say that a resumed attempt began, even if its program told nothing."""
        self._begin(None)

    def _begin(self, resumed: int | None) -> None:
        """Say at which step a resumed attempt goes on, and tell again what was told up to there.

        None goes on from the last step that was told.
        """
        if self._before is None:
            return
        before, self._before = self._before, None
        placed = [(reading.step, reading.values) for reading in before if reading.step is not None]
        step = max((step for step, _ in placed), default=0) if resumed is None else max(resumed, 0)
        self._context.event("start", step=step)
        merged: dict[int, dict[str, float]] = {}
        for at, values in placed:
            if 0 <= at <= step:
                merged.setdefault(at, {}).update(values)
        for at, values in sorted(merged.items()):
            self._log(at, values)
        self._step = step
        self._clock = None

    def _log(self, step: int, values: Mapping[str, float]) -> None:
        training = {name: value for name, value in values.items() if name in _TRAINING or name.startswith("train/")}
        others = {name: value for name, value in values.items() if name not in training}
        if training:
            self._context.event("step", step=step, **{_TRAINING.get(k, k): v for k, v in training.items()})
        if others:
            self._context.event("validation", step=step, values=others)
        for name, value in others.items():
            if not math.isfinite(value):
                self._last.pop(name, None)
                continue
            self._last[name] = value
            known = self._best.get(name)
            if known is None or _better(value, known, self._direction(name)):
                self._best[name] = value
        fields: dict[str, Any] = {"step": step, "last": dict(self._last), "best": dict(self._best)}
        if math.isfinite(training.get("train/loss", math.nan)):
            fields["loss"] = training["train/loss"]
        self._context.state(**fields, **self._pace(step))

    def _pace(self, step: int) -> dict[str, float]:
        now = time.monotonic()
        if self._clock is None or step < self._clock[1]:
            self._clock = (now, step)
        began, first = self._clock
        if step == first or now <= began:
            return {}
        pace = (step - first) / (now - began)
        if not self._steps:
            return {"per_second": pace}
        left = max(0, self._steps - step)
        return {"per_second": pace, "remaining": left / pace, "progress": min(1.0, step / self._steps)}


def _better(value: float, known: float, direction: Literal["lower", "higher"]) -> bool:
    return value > known if direction == "higher" else value < known


def summary(context: Context, *, direction: Direction) -> Summary:
    """Return the last and best value of every metric over all attempts, superseded events left out; not all finite."""
    context.flush()
    found = Summary()
    for event in read_events(RunFolder(context.folder), problems=[]):
        step = int(event.get("step", 0))
        if event.get("e") == "validation":
            values: Mapping[str, Any] = event.get("values") or {}
        elif event.get("e") == "step":
            named = {"train/loss" if k == "loss" else k: v for k, v in event.items() if k not in _NOT_VALUES}
            values = {name: value for name, value in named.items() if isinstance(value, int | float)}
        else:
            continue
        found.steps = max(found.steps, step)
        for name, value in values.items():
            found.last[name] = float(value)
            if not math.isfinite(value):
                continue
            known = found.best.get(name)
            if known is None or _better(float(value), known.value, direction(name)):
                found.best[name] = Best(value=float(value), step=step)
    return found
