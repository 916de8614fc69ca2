"""What stages need: `[experiment.]stage[@last|@best]`, the default where nothing is written, order, and circles."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from ablab.contract.kinds import is_command, is_select
from ablab.contract.task import StageSpec
from ablab.study.document import STAGE_NAME
from ablab.study.problems import Mark, Problems, listed, nearest
from ablab.study.schema import Need
from ablab.study.yaml12 import Block


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Declared:
    """A stage as the study declares it, before its sections are typed. `needs` None means nothing is written."""

    name: str
    spec: StageSpec
    needs: tuple[tuple[str, Mark], ...] | None
    overrides: Block
    parameters: Block
    mark: Mark

    @property
    def shape(self) -> tuple[object, ...]:
        """What decides needs and order: the same for stages that differ in parameters only."""
        return (self.name, id(self.spec), self.needs)


class Placed(NamedTuple):
    """A stage in its place in the order of an experiment, with what it needs.

    `position` is its place in the pipeline as written; `declared` is a stage of this shape.
    """

    position: int
    declared: Declared
    needs: tuple[Need, ...]
    marks: tuple[Mark, ...]


class Needs:
    """Resolves the needs of every experiment; the same stages are resolved once."""

    def __init__(self, problems: Problems) -> None:
        self._problems = problems
        self._orders: dict[tuple[object, ...], tuple[Placed, ...]] = {}
        self._interned: dict[tuple[Need, ...], tuple[Need, ...]] = {}
        self._placed: dict[str, tuple[Placed, ...]] = {}

    def placed(self, experiment: str) -> tuple[Placed, ...]:
        """Return the stages of an experiment whose order was asked for."""
        return self._placed[experiment]

    def order(self, experiment: str, declared: Sequence[Declared]) -> tuple[Placed, ...]:
        """Return the stages of an experiment, each after those of its own that it needs."""
        crossing = any("." in text for stage in declared if stage.needs for text, _ in stage.needs)
        key = (experiment if crossing else None, *[stage.shape for stage in declared])
        placed = self._orders.get(key)
        if placed is None:
            placed = self._orders[key] = self._order(experiment, declared)
        self._placed[experiment] = placed
        return placed

    def check_crossing(self) -> None:
        """Check needs of other experiments' stages, once all experiments are known; note circles among them."""
        links: dict[str, set[str]] = {}
        for experiment, placed in self._placed.items():
            for stage in placed:
                for need, mark in zip(stage.needs, stage.marks, strict=True):
                    if need.experiment is not None:
                        links.setdefault(experiment, set()).add(need.experiment)
                        self._check_other(stage.declared, need, mark)
        # Within an experiment there is no circle, so one across experiments runs only through experiments that
        # both need others and are needed.
        needed = {other for others in links.values() for other in others}
        self._check_circles({name for name in links if name in needed})

    def _order(self, experiment: str, declared: Sequence[Declared]) -> tuple[Placed, ...]:
        by_name = {stage.name: stage for stage in declared}
        placed: dict[str, Placed] = {}
        for index, stage in enumerate(declared):
            wants = self._wants(experiment, stage, declared[:index])
            for need, mark in wants:
                if need.experiment is None:
                    self._check_need(stage, need, mark, by_name, f"this experiment's: {listed(by_name)}")
            needs = tuple(need for need, _ in wants)
            needs = self._interned.setdefault(needs, needs)
            placed[stage.name] = Placed(index, stage, needs, tuple(mark for _, mark in wants))
        return self._sorted(placed)

    def _wants(self, experiment: str, stage: Declared, earlier: Sequence[Declared]) -> list[tuple[Need, Mark]]:
        if stage.needs is None:
            return self._default(stage, earlier)
        wants: dict[tuple[str | None, str], tuple[Need, Mark]] = {}
        for text, mark in stage.needs:
            need = self._parse(text, mark, experiment)
            if need is None:
                continue
            if (need.experiment, need.stage) in wants:
                self._problems.add(mark, f"{text!r} is needed twice")
            wants[need.experiment, need.stage] = (need, mark)
        return list(wants.values())

    def _default(self, stage: Declared, earlier: Sequence[Declared]) -> list[tuple[Need, Mark]]:
        """Return, for each kind the stage takes, the nearest earlier stage of that kind."""
        near = {other.spec.kind: other.name for other in earlier}
        names = [near[kind] for kind in stage.spec.inputs if kind in near]
        if stage.spec.inputs and not names:
            kinds = " or ".join(stage.spec.inputs)
            self._problems.add(stage.mark, f"a {stage.spec.kind} stage needs a stage of kind {kinds} before it")
        return [(Need(experiment=None, stage=name, text=name), stage.mark) for name in names]

    def _parse(self, text: str, mark: Mark, experiment: str) -> Need | None:
        target, at, checkpoint = text.partition("@")
        other, _, stage = target.rpartition(".")
        if at and checkpoint not in ("last", "best"):
            self._problems.add(mark, f"expected @last or @best, found {'@' + checkpoint!r} in {text!r}")
            return None
        if not STAGE_NAME.match(stage):
            self._problems.add(mark, f"expected [experiment.]stage[@last|@best], found {text!r}")
            return None
        which: Literal["last", "best"] = "best" if checkpoint == "best" else "last"
        return Need(experiment=None if other in ("", experiment) else other, stage=stage, checkpoint=which, text=text)

    def _check_other(self, stage: Declared, need: Need, mark: Mark) -> None:
        assert need.experiment is not None
        others = self._placed.get(need.experiment)
        if others is None:
            message = f"{need.text!r} names no experiment of this study"
            self._problems.add(mark, message, nearest(need.experiment, self._placed))
            return
        by_name = {other.declared.name: other.declared for other in others}
        if need.stage in by_name and is_select(by_name[need.stage].spec):
            self._problems.add(mark, f"{need.text!r} is a select stage; only its own experiment can need it")
            return
        self._check_need(stage, need, mark, by_name, f"stages of {need.experiment}: {listed(by_name)}")

    def _check_need(self, stage: Declared, need: Need, mark: Mark, by_name: Mapping[str, Declared], known: str) -> None:
        target = by_name.get(need.stage)
        if target is None:
            self._problems.add(mark, f"needs {need.text!r}, which is no stage; {known}", nearest(need.stage, by_name))
            return
        inputs = stage.spec.inputs
        # What a command leaves may be anything; the stage that reads it says what it wants.
        if inputs and target.spec.kind not in inputs and not is_select(target.spec) and not is_command(target.spec):
            message = f"a {stage.spec.kind} stage reads {listed(inputs)}; {need.text!r} is of kind {target.spec.kind}"
            self._problems.add(mark, message)
        if "@" in need.text and not target.spec.makes_checkpoints:
            message = f"{need.text!r} asks for a checkpoint, and a {target.spec.kind} stage makes none"
            self._problems.add(mark, message)

    def _sorted(self, placed: Mapping[str, Placed]) -> tuple[Placed, ...]:
        """Return stages in the order written, moved only where one stands before a stage it needs."""
        done: list[Placed] = []
        left = dict(placed)
        while left:
            ready = next((name for name, stage in left.items() if left.keys().isdisjoint(_own(stage))), None)
            if ready is None:
                circle = _circle({name: _own(stage) for name, stage in left.items()})
                message = f"stages need each other in a circle: {_arrows(circle)}"
                self._problems.add(left[circle[0]].declared.mark, message)
                return (*done, *left.values())
            done.append(left.pop(ready))
        return tuple(done)

    def _check_circles(self, experiments: set[str]) -> None:
        graph: dict[str, list[str]] = {}
        for experiment in sorted(experiments):
            for stage in self._placed[experiment]:
                graph[f"{experiment}.{stage.declared.name}"] = [
                    f"{need.experiment or experiment}.{need.stage}" for need in stage.needs
                ]
        while circle := _circle(graph):
            experiment, _, name = circle[0].rpartition(".")
            stage = next(stage for stage in self._placed[experiment] if stage.declared.name == name)
            if len({node.rpartition(".")[0] for node in circle}) > 1:
                message = f"stages of several experiments need each other in a circle: {_arrows(circle)}"
                self._problems.add(stage.declared.mark, message)
            for node in circle:
                graph.pop(node, None)


def _own(stage: Placed) -> list[str]:
    return [need.stage for need in stage.needs if need.experiment is None]


def _circle(graph: Mapping[str, Sequence[str]]) -> list[str]:
    """Return one circle of a graph (node to the nodes it needs), or an empty list; targets outside are ignored."""
    state: dict[str, int] = {}
    for root in graph:
        if root in state:
            continue
        trail: list[str] = []
        stack: list[tuple[str, int]] = [(root, 0)]
        while stack:
            node, index = stack.pop()
            if index == 0:
                state[node] = 1
                trail.append(node)
            targets = [target for target in graph[node] if target in graph]
            if index < len(targets):
                stack.append((node, index + 1))
                target = targets[index]
                if state.get(target) == 1:
                    return trail[trail.index(target) :]
                if target not in state:
                    stack.append((target, 0))
            else:
                state[node] = 2
                trail.pop()
    return []


def _arrows(circle: Sequence[str]) -> str:
    return " needs ".join((*circle, circle[0]))
