"""Resolves comparisons and references: experiments, factor paths, metrics and criteria are all checked."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from functools import cached_property
from typing import Any, Literal

from ablab.contract.task import StageSpec, TaskSpec
from ablab.study.addresses import Addresses
from ablab.study.criteria import CriterionError, parse_criterion
from ablab.study.document import ComparisonEntry
from ablab.study.metric_names import MetricNames
from ablab.study.problems import Mark, Problems, listed, nearest, shown
from ablab.study.schema import Comparison, Criterion, References
from ablab.study.validation import Validator
from ablab.study.yaml12 import Block, Items

_REFERENCE_KEYS = ("source", "note")


class Comparisons:
    """Resolves the comparisons and references of one study against its experiments.

    Args:
        task: the task.
        names: names of all experiments, in order.
        kinds: stage kinds that occur in the study, for the metrics they yield.
        addresses: makes the paths a factor may name, called where a path is checked.
        validator: types entries.
        problems: where problems are noted.
    """

    def __init__(
        self,
        task: TaskSpec,
        *,
        names: Sequence[str],
        kinds: Iterable[StageSpec],
        addresses: Callable[[], Addresses],
        validator: Validator,
        problems: Problems,
    ) -> None:
        self._names = names
        self._known = frozenset(names)
        self._make_addresses = addresses
        self._validator = validator
        self._problems = problems
        self._metrics = MetricNames(task, kinds)

    @cached_property
    def _addresses(self) -> Addresses:
        return self._make_addresses()

    def comparisons(self, raw: Any, mark: Mark) -> tuple[Comparison, ...]:
        """Return the typed comparisons."""
        if isinstance(raw, Block):
            raw = Items([raw], [mark])
        if not isinstance(raw, Items):
            self._problems.add(mark, f"expected a list of comparisons, found {shown(raw)}")
            return ()
        found: dict[str, Comparison] = {}
        for number, (entry, place) in enumerate(zip(raw, raw.marks, strict=True), start=1):
            comparison = self._comparison(entry, place, number)
            if comparison is None:
                continue
            if comparison.name in found:
                self._problems.add(place, f"a comparison called {comparison.name!r} is there already")
            found[comparison.name] = comparison
        return tuple(found.values())

    def references(self, raw: Any, mark: Mark) -> dict[str, References]:
        """Return the typed references by experiment."""
        if not isinstance(raw, Block):
            self._problems.add(mark, f"expected a mapping of experiments, found {shown(raw)}")
            return {}
        found = {}
        for name, entry in raw.items():
            place = raw.marks[name]
            self._check_experiment(name, place)
            if not isinstance(entry, Block):
                self._problems.add(place, f"expected a mapping of metric to value, found {shown(entry)}")
                continue
            for key in entry:
                if key not in _REFERENCE_KEYS:
                    self._metrics.check(key, entry.marks[key], self._problems, also=_REFERENCE_KEYS)
            typed = self._validator.validate(References, _reference(entry, place), place)
            if typed is not None:
                middles = {metric: (low + high) / 2 for metric, (low, high) in typed.bands.items()}
                found[name] = typed.model_copy(update={"values": {**typed.values, **middles}})
        return found

    def _comparison(self, raw: Any, mark: Mark, number: int) -> Comparison | None:
        entry = self._validator.validate(ComparisonEntry, raw, mark)
        if entry is None:
            return None
        marks = raw.marks
        self._check_experiment(entry.baseline, marks["baseline"])
        controls = (*entry.controls.fail, *entry.controls.passing)
        for written in (raw.get("controls") or {}).values():
            for name, place in zip(written, written.marks, strict=True):
                self._check_experiment(name, place)
        variants = self._variants(_names(entry.variants), marks["variants"], (entry.baseline, *controls))
        for key in ("factor", "also"):
            for path in _names(getattr(entry, key)):
                if not self._addresses.exists(path):
                    hint = self._addresses.nearest(path)
                    self._problems.add(marks[key], f"no experiment has the path {path!r}", hint)
        metric, at = self._metric(entry, raw, mark)
        criterion = self._criterion(entry, raw, mark, metric)
        if criterion is None or metric is None:
            return None
        return Comparison(
            name=entry.name or f"comparison-{number}",
            baseline=entry.baseline,
            variants=variants,
            factor=_names(entry.factor),
            metric=metric,
            criterion=criterion,
            at=at,
            also=_names(entry.also),
            fail_controls=entry.controls.fail,
            pass_controls=entry.controls.passing,
            confidence=entry.confidence,
            question=entry.question,
            exploratory=entry.exploratory,
            line=mark.line,
        )

    def _variants(self, patterns: Sequence[str], mark: Mark, others: Sequence[str]) -> tuple[str, ...]:
        """Return the experiments that names and patterns mean; a pattern leaves baseline and controls out."""
        found: dict[str, None] = {}
        for pattern in patterns:
            if pattern in self._known:
                if pattern in others:
                    self._problems.add(mark, f"{pattern!r} is the baseline or a control, and cannot be a variant")
                found[pattern] = None
                continue
            matching = [name for name in self._names if fnmatchcase(name, pattern) and name not in others]
            if not matching:
                is_pattern = any(character in pattern for character in "*?[")
                what = f"no experiment matches {pattern!r}" if is_pattern else f"no experiment is called {pattern!r}"
                self._problems.add(mark, f"{what}; experiments: {listed(self._names)}", nearest(pattern, self._names))
            found.update(dict.fromkeys(matching))
        if not patterns:
            self._problems.add(mark, "a comparison needs at least one variant")
        return tuple(found)

    def _metric(self, entry: ComparisonEntry, raw: Block, mark: Mark) -> tuple[str | None, Literal["last", "best"]]:
        at: Literal["last", "best"] = entry.at or "last"
        name = entry.metric
        if name is None:
            if entry.criterion is None:
                self._problems.add(mark, "`metric` is required, for example metric: val/perplexity")
                return None, at
            try:
                return parse_criterion(entry.criterion, metric=None).conditions[0].metric, at
            except CriterionError:
                return None, at
        place = raw.marks["metric"]
        name, written, checkpoint = name.partition("@")
        if written:
            if checkpoint not in ("last", "best") or entry.at not in (None, checkpoint):
                self._problems.add(
                    place, f"expected metric, metric@last or metric@best, as `at` says; found {entry.metric!r}"
                )
            at = "best" if checkpoint == "best" else "last"
        self._metrics.check(name, place, self._problems)
        return name, at

    def _criterion(self, entry: ComparisonEntry, raw: Block, mark: Mark, metric: str | None) -> Criterion | None:
        if entry.criterion is None:
            if not entry.exploratory:
                message = "`criterion` is required (ratio <= 1.05), or say `exploratory: true`: shown without a verdict"
                self._problems.add(mark, message)
                return None
            return Criterion(text="", conditions=())
        place = raw.marks["criterion"]
        try:
            criterion = parse_criterion(entry.criterion, metric=metric)
        except CriterionError as error:
            self._problems.add(place, str(error), error.suggestion)
            return None
        for condition in criterion.conditions:
            if condition.metric != metric or entry.metric is None:
                self._metrics.check(condition.metric, place, self._problems)
        return criterion

    def _check_experiment(self, name: str, mark: Mark) -> None:
        if name not in self._known:
            message = f"no experiment is called {name!r}; experiments: {listed(self._names)}"
            self._problems.add(mark, message, nearest(name, self._names))


def _reference(entry: Block, place: Mark) -> Block:
    """Return an entry of `references:` in the form of its type: numbers under `values`, bands under `bands`."""
    metrics = [key for key in entry if key not in _REFERENCE_KEYS]
    kinds = {"values": [key for key in metrics if not isinstance(entry[key], Items)]}
    kinds["bands"] = [key for key in metrics if key not in kinds["values"]]
    words = {key: entry[key] for key in entry if key in _REFERENCE_KEYS and entry[key] is not None}
    parts = {
        kind: Block({key: entry[key] for key in keys}, {key: entry.marks[key] for key in keys})
        for kind, keys in kinds.items()
    }
    return Block({**words, **parts}, {**entry.marks, **dict.fromkeys(parts, place)})


def _names(value: str | tuple[str, ...]) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else value


def stage_kinds_by_name(stages: Iterable[tuple[str, StageSpec]]) -> Mapping[str, list[StageSpec]]:
    """Gather the kinds each stage name has."""
    found: dict[str, list[StageSpec]] = {}
    for name, spec in stages:
        known = found.setdefault(name, [])
        if spec not in known:
            known.append(spec)
    return found
