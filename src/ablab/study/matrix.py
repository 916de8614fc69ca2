"""Expands `matrix:` into experiments with stable names, one for each combination of the axes' values.

Blocks are shared: a section or stage is merged once for each combination of the axes inside it, however many
experiments hold it.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from ablab.study.addresses import Addresses
from ablab.study.document import MatrixEntry
from ablab.study.merging import Merger, nested
from ablab.study.problems import Mark, Problems, listed, nearest, shown
from ablab.study.yaml12 import Block, Items

#: Experiments one matrix may make.
LIMIT = 1_000_000

_FIELD = re.compile(r"\{([^{}]*)\}")
_UNSAFE = re.compile(r"[^\w.+=-]+")


@dataclass(frozen=True, slots=True)
class Axis:
    """One axis: its path, the values, where each is written, and how each looks in a name."""

    path: str
    values: Items
    marks: Sequence[Mark]

    @property
    def unit(self) -> tuple[str, ...]:
        """The block the axis changes: a section, or a stage of the pipeline."""
        parts = self.path.split(".")
        return tuple(parts[:2]) if parts[0] == "pipeline" else (parts[0],)

    @property
    def texts(self) -> list[str]:
        """The values as parts of a name."""
        return [value_text(value) for value in self.values]

    def overlay(self, index: int) -> Any:
        """Return what the value at `index` puts on top of the axis's unit."""
        inner = self.path.split(".")[len(self.unit) :]
        value, mark = self.values[index], self.marks[index]
        return nested(inner, value, mark) if inner else value


def expand(
    entry: MatrixEntry, raw: Block, base: Block, *, addresses: Addresses, merger: Merger, problems: Problems, mark: Mark
) -> Iterator[tuple[str, str, Block]]:
    """Yield (name, label, configuration) of every experiment of a matrix; problems are noted and yield nothing.

    Args:
        entry: the typed entry.
        raw: the same as written, with marks.
        base: configuration that all experiments start from.
        addresses: the paths an axis may have.
        merger: merges values onto the base.
        problems: where problems are noted.
        mark: where the entry stands.
    """
    before = len(problems)
    axes = _axes(raw, addresses, problems)
    name_of = _namer(entry.name or _default_name(entry.like, axes), axes, entry, raw.marks.get("name", mark), problems)
    label_of = _namer(entry.label, axes, entry, raw.marks.get("label", mark), problems)
    excluded = _excluded(raw, axes, problems)
    count = math.prod(len(axis.values) for axis in axes)
    if count > LIMIT:
        problems.add(mark, f"makes {count} experiments; at most {LIMIT} are possible")
    if len(problems) > before:
        return
    build = _builder(axes, base, merger, mark)
    for indices in itertools.product(*(range(len(axis.values)) for axis in axes)):
        if not any(all(indices[axis] == index for axis, index in rule) for rule in excluded):
            yield name_of(indices), label_of(indices), build(indices)


def value_text(value: Any) -> str:
    """Return a value as a part of an experiment's name: short, stable, and safe in a path."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if value is None:
        return "null"
    if isinstance(value, float):
        text = repr(value)
        return f"{float(text):g}".replace("e-0", "e-").replace("e+", "e") if "e" in text else text.removesuffix(".0")
    if isinstance(value, dict):
        return "_".join(f"{key}={value_text(item)}" for key, item in value.items())
    if isinstance(value, (list, tuple)):
        return "_".join(map(value_text, value))
    return _UNSAFE.sub("-", str(value))


def _axes(raw: Block, addresses: Addresses, problems: Problems) -> list[Axis]:
    axes: list[Axis] = []
    written = raw["axes"]
    for path, values in written.items():
        mark = written.marks[path]
        if path.count(".") == 0 and path == "pipeline":
            problems.add(mark, "an axis names a stage or a field of one: pipeline.train.steps")
        elif not addresses.exists(path):
            problems.add(mark, f"no experiment has the path {path!r}", addresses.nearest(path))
        for other in axes:
            if path.startswith(other.path + ".") or other.path.startswith(path + "."):
                problems.add(mark, f"the axes {other.path!r} and {path!r} change the same values")
        axes.append(Axis(path, values, values.marks))
    return axes


def _excluded(raw: Block, axes: list[Axis], problems: Problems) -> list[list[tuple[int, int]]]:
    """Return each rule as (axis, value) index pairs that must all hold."""
    rules = []
    paths = [axis.path for axis in axes]
    for rule in raw.get("exclude") or ():
        pairs = []
        for path, value in rule.items():
            mark = rule.marks[path]
            if path not in paths:
                problems.add(mark, f"{path!r} is no axis of this matrix: {listed(paths)}", nearest(path, paths))
                continue
            axis = paths.index(path)
            if value not in axes[axis].values:
                known = listed(map(value_text, axes[axis].values))
                problems.add(mark, f"{shown(value)} is no value of the axis {path}: {known}")
                continue
            pairs.append((axis, axes[axis].values.index(value)))
        if not rule:
            problems.add(raw.marks["exclude"], "an empty rule would leave out every experiment")
        rules.append(pairs)
    return rules


def _default_name(like: str | None, axes: list[Axis]) -> str:
    """Return a template that names every axis by the shortest end of its path that no other axis shares."""
    parts = [like] if like else []
    for axis in axes:
        short = next(end for end in _ends(axis.path) if sum(end in _ends(other.path) for other in axes) == 1)
        parts.append(f"{_UNSAFE.sub('-', short)}{{{axis.path}}}")
    return "-".join(parts)


def _ends(path: str) -> list[str]:
    parts = path.split(".")
    return [".".join(parts[-count:]) for count in range(1, len(parts) + 1)]


def _namer(
    template: str, axes: list[Axis], entry: MatrixEntry, mark: Mark, problems: Problems
) -> Callable[[Sequence[int]], str]:
    """Return a function from value indices to the filled template; `{path}` or any end of it that is unambiguous."""
    pieces: list[tuple[int, list[str]]] = []
    for position, part in enumerate(_FIELD.split(template)):
        if position % 2 == 0:
            pieces.append((-1, [part]))
            continue
        matching = [index for index, axis in enumerate(axes) if axis.path == part] or [
            index for index, axis in enumerate(axes) if part in _ends(axis.path)
        ]
        if part == "like" and entry.like:
            pieces.append((-1, [entry.like]))
        elif len(matching) == 1:
            pieces.append((matching[0], axes[matching[0]].texts))
        else:
            paths = [axis.path for axis in axes]
            what = "could be several axes" if matching else "is no axis"
            problems.add(mark, f"{{{part}}} {what} of this matrix: {listed(paths)}", nearest(part, paths))
    return lambda indices: "".join(texts[0 if axis < 0 else indices[axis]] for axis, texts in pieces)


def _builder(axes: list[Axis], base: Block, merger: Merger, mark: Mark) -> Callable[[Sequence[int]], Block]:
    """Return a function from value indices to a configuration, which merges every distinct unit once."""
    units = list(dict.fromkeys(axis.unit for axis in axes))
    members = {unit: [index for index, axis in enumerate(axes) if axis.unit == unit] for unit in units}
    sections = [unit for unit in units if len(unit) == 1]
    stages = [unit for unit in units if len(unit) == 2]
    pipeline = base.get("pipeline", Block())
    marks = {**base.marks, **{unit[0]: mark.child(unit[0]) for unit in units if unit[0] not in base.marks}}
    stage_marks = {**pipeline.marks, **{unit[1]: mark for unit in stages if unit[1] not in pipeline.marks}}
    known: dict[tuple[Any, ...], Any] = {}

    def merged(unit: tuple[str, ...], chosen: tuple[int, ...]) -> Any:
        value = known.get((unit, chosen))
        if value is None:
            value = pipeline.get(unit[1]) if len(unit) == 2 else base.get(unit[0])
            for axis, index in zip(members[unit], chosen, strict=True):
                over = axes[axis].overlay(index)
                value = merger.merge(value, over) if isinstance(value, Block) and isinstance(over, Block) else over
            known[unit, chosen] = value
        return value

    def merged_pipeline(indices: Sequence[int]) -> Block:
        chosen = tuple(tuple(indices[axis] for axis in members[unit]) for unit in stages)
        value = known.get(("pipeline", chosen))
        if value is None:
            changed = {unit[1]: merged(unit, part) for unit, part in zip(stages, chosen, strict=True)}
            value = known["pipeline", chosen] = Block({**pipeline, **changed}, stage_marks)
        return value

    def build(indices: Sequence[int]) -> Block:
        config = Block(base, marks)
        for unit in sections:
            config[unit[0]] = merged(unit, tuple(indices[axis] for axis in members[unit]))
        if stages:
            config["pipeline"] = merged_pipeline(indices)
        return config

    return build
