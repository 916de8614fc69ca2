"""Which metrics the stages of a study yield, by name or pattern, and the nearest to a wrong name."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase

from ablab.contract.task import StageSpec, TaskSpec
from ablab.study.problems import Mark, Problems, listed, nearest


class MetricNames:
    """The metrics that a task declares and that these stage kinds yield; patterns are those of fnmatch."""

    def __init__(self, task: TaskSpec, kinds: Iterable[StageSpec]) -> None:
        declared = [metric.name for metric in task.metrics]
        self._patterns = list(dict.fromkeys([*declared, *(name for spec in kinds for name in spec.metrics)]))

    def check(self, name: str, mark: Mark, problems: Problems, *, also: Sequence[str] = ()) -> None:
        """Note a metric that nothing yields; a task that declares none accepts every name."""
        if not self._patterns or any(fnmatchcase(name, pattern) for pattern in self._patterns):
            return
        concrete = [_like(pattern, name) for pattern in self._patterns]
        message = f"no stage of this study yields the metric {name!r}; known: {listed(self._patterns)}"
        problems.add(mark, message, nearest(name, [*concrete, *also]))


def _like(pattern: str, name: str) -> str:
    """Return a pattern with its first star filled from the name: "*/loss" and "val/los" give "val/loss"."""
    return pattern.replace("*", name.partition("/")[0], 1) if "/" in name else pattern.removeprefix("*/")
