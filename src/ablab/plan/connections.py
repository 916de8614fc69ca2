"""How the stages of an experiment hang together: their order, and the inputs of each as they enter keys and runs.

Experiments whose pipelines have the same form share all of it. Which stage a need means is found by
`ablab.plan.programs`, which knows the other experiments.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from typing import Literal

from ablab.contract.failure import ConfigError
from ablab.contract.kinds import is_select
from ablab.plan.graph import RunInput
from ablab.plan.keys import InputKey, input_template
from ablab.plan.sweeps import swept_stage
from ablab.study.schema import Experiment


@dataclass(slots=True, kw_only=True)
class Link:
    """An input of a step: a step of the same experiment, or of the one named, at a position.

    `made` is the last run input made of it, which is used again while the key is the same.
    """

    reference: str
    kind: str
    checkpoint: Literal["last", "best"]
    position: int
    experiment: str | None
    made: RunInput | None = None


@dataclass(slots=True, kw_only=True)
class Connection:
    """The inputs of a stage, the same for all experiments that share their pipeline's form.

    Args:
        links: in the order of the stage's needs.
        local: positions of the steps they lead to, where all are of the same experiment.
        order: positions of `links` in the order of the key, where that is another.
        template: inputs as they enter the key, `%s` for each key.
    """

    links: tuple[Link, ...]
    local: tuple[int, ...] | None
    order: tuple[int, ...] | None
    template: str

    def text(self, keys: tuple[str, ...]) -> str:
        """Return the inputs as they enter a key; `keys` are in the order of the links."""
        if self.order is not None:
            keys = tuple([keys[position] for position in self.order])
        return self.template % keys

    def inputs(self, keys: tuple[str, ...]) -> list[RunInput]:
        """Return the inputs of a run; `keys` are in the order of the links."""
        made = []
        for link, key in zip(self.links, keys, strict=True):
            given = link.made
            if given is None or given.key != key:
                given = link.made = RunInput(key, link.reference, link.checkpoint)
            made.append(given)
        return made


@dataclass(slots=True, kw_only=True)
class Form:
    """What pipelines of the same stage names, kinds and needs share: order, positions by name, connections."""

    order: tuple[int, ...]
    names: tuple[str, ...]
    positions: Mapping[str, int]
    connections: dict[int, Connection]


def connect(links: tuple[Link, ...]) -> Connection:
    """Return the connection of links in the order of a stage's needs; a key has them sorted by kind."""
    order = tuple(sorted(range(len(links)), key=lambda position: links[position].kind))
    is_local = all(link.experiment is None for link in links)
    return Connection(
        links=links,
        local=tuple([link.position for link in links]) if is_local else None,
        order=None if order == tuple(range(len(links))) else order,
        template=input_template(_named(links)),
    )


def _named(links: Sequence[Link]) -> list[InputKey]:
    """Return inputs for a key; two of one kind carry the stage's name, or the whole reference where names repeat."""
    rows = []
    for link in links:
        alike = [other.reference.partition("@")[0] for other in links if other.kind == link.kind]
        reference = link.reference.partition("@")[0]
        name = reference.rpartition(".")[2]
        if len({other.rpartition(".")[2] for other in alike}) == len(alike):
            reference = name
        rows.append(
            InputKey(kind=link.kind, key="", checkpoint=link.checkpoint, reference=reference if len(alike) > 1 else "")
        )
    return rows


def in_order(experiment: Experiment) -> tuple[int, ...]:
    """Return the positions of an experiment's stages, inputs first; a select stage after what its trials read.

    Raises:
        ConfigError: stages need each other in a circle.
    """
    stages = experiment.stages
    before: dict[str, set[str]] = {}
    ordered = True
    for stage in stages:
        own = {need.stage for need in stage.needs if need.experiment in (None, experiment.name)}
        ordered = ordered and own <= before.keys()
        before[stage.name] = own
    selects = [stage for stage in stages if is_select(stage.spec)]
    if ordered and not selects:
        return tuple(range(len(stages)))
    names = {stage.name for stage in selects}
    for select in selects:
        before[select.name] |= before[swept_stage(experiment, select).name] - names
    positions = {stage.name: position for position, stage in enumerate(stages)}
    try:
        found = list(TopologicalSorter(before).static_order())
    except CycleError as error:
        circle = " -> ".join(error.args[1])
        raise ConfigError(f"experiments.{experiment.name}: stages need each other in a circle: {circle}") from error
    return tuple([positions[name] for name in found if name in positions])
