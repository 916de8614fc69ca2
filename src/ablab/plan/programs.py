"""Compiles an experiment into steps: stages in order, hashed once, with their inputs found and their sweeps decided.

A step is a stage before it meets a seed; `ablab.plan.expansion` turns steps into runs. Experiments that share stages
share steps, so that a matrix of 10^4 experiments compiles in a fraction of a second.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ablab.contract.failure import ConfigError
from ablab.contract.kinds import is_select
from ablab.plan.connections import Connection, Form, Link, connect, in_order
from ablab.plan.keys import Identity, InputKey, Keyer, finish_key, run_key
from ablab.plan.sweeps import Sweep, combinations, inherited, parameters_of, reference_of, swept_stage, without_needs
from ablab.study.schema import Comparison, Experiment, Need, Stage, Study
from ablab.study.selects import vary

#: Returns what the select run of a key chose, or None while it is not done.
Choices = Callable[[str], Mapping[str, Any] | None]


@dataclass(slots=True, kw_only=True)
class Step:
    """One stage of one or more experiments, ready to become runs.

    Args:
        stage: with what was chosen for it set.
        identity: what it brings into its keys.
        connection: its inputs.
        per_seed: whether its runs differ by seed, because it draws from it or an input does.
        key: key of its only run, where that is known.
        sweep: for a select stage, its trials.
        choice: for a select stage, what it chose, once it is done.
        late: keys of the select runs it waits for.
        chosen: values that select runs chose for it.
    """

    stage: Stage
    identity: Identity
    connection: Connection
    per_seed: bool
    key: str = ""
    sweep: Sweep[Step] | None = None
    choice: Mapping[str, Any] | None = None
    late: tuple[str, ...] = ()
    chosen: Mapping[str, Any] = field(default_factory=dict)


@dataclass(slots=True, kw_only=True)
class Program:
    """One experiment as steps, inputs first. A step is compiled when it is first asked for (`Programs.step`)."""

    experiment: Experiment
    form: Form
    stages: Sequence[Stage]
    steps: list[Step | None]

    def closure(self, positions: Iterable[int]) -> list[int]:
        """Return the positions of compiled steps and of all they need in their experiment, inputs first."""
        found = set(positions)
        for position in range(max(found, default=-1), -1, -1):
            step = self.steps[position]
            if position in found and step is not None:
                found.update(link.position for link in step.connection.links if link.experiment is None)
        return sorted(found)


class Programs:
    """The programs of a study, each compiled on first use.

    Args:
        study: the study.
        keyer: hashes stages.
        choices: says what select runs chose.
    """

    def __init__(self, study: Study, keyer: Keyer, choices: Choices) -> None:
        self.study = study
        self._keyer = keyer
        self._choices = choices
        self._known: dict[str, Program] = {}
        self._forms: dict[tuple[object, ...], Form] = {}
        self._steps: dict[tuple[int, int, bool, bool], Step] = {}
        self._compiling: list[str] = []
        self._best, self._has_selects = _survey(study)

    def compiled(self, name: str) -> Program:
        """Return the program of an experiment with all its steps.

        Raises:
            ConfigError: for needs in a circle, or that lead nowhere.
        """
        program = self.opened(name)
        for position, step in enumerate(program.steps):
            if step is None:
                self.step(program, position)
        return program

    def opened(self, name: str) -> Program:
        """Return the program of an experiment, its steps not yet compiled."""
        known = self._known.get(name)
        if known is None:
            experiment = self.study.experiments[name]
            form = self._form(experiment)
            stages = experiment.stages
            if form.order != tuple(range(len(stages))):
                stages = tuple([stages[position] for position in form.order])
            known = Program(experiment=experiment, form=form, stages=stages, steps=[None] * len(stages))
            self._known[name] = known
        return known

    def step(self, program: Program, position: int) -> Step:
        """Return one step of a program; it and what it needs are compiled on first use."""
        known = program.steps[position]
        if known is None:
            stage, connection = program.stages[position], self._connection_at(program, position)
            make = self._chosen_step if self._has_selects else self._shared_step
            known = program.steps[position] = make(program, stage, connection)
        return known

    def target(self, program: Program, link: Link) -> Step:
        """Return the step that a link of a program leads to."""
        other = program if link.experiment is None else self.opened(link.experiment)
        known = other.steps[link.position]
        if known is not None:
            return known
        place = f"{other.experiment.name}.{other.stages[link.position].name}"
        if place in self._compiling:
            circle = " -> ".join([*self._compiling[self._compiling.index(place) :], place])
            raise ConfigError(f"stages of several experiments need each other in a circle: {circle}")
        self._compiling.append(place)
        step = self.step(other, link.position)
        self._compiling.pop()
        return step

    def key_of(self, program: Program, step: Step, seed: int) -> str:
        """Return the key that a step has for a seed."""
        if step.key:
            return step.key
        keys = []
        for link in step.connection.links:
            other = program if link.experiment is None else self.opened(link.experiment)
            keys.append(self.key_of(other, self.target(program, link), seed))
        return finish_key(step.identity, step.connection.text(tuple(keys)), seed)

    def _shared_step(self, program: Program, stage: Stage, connection: Connection) -> Step:
        """Return the step of a stage; experiments that share the stage share it where its keys cannot differ."""
        scheduled = (program.experiment.name, stage.name) in self._best
        inherits = self._inherits_seed(program, connection)
        memo = (id(stage), id(connection), inherits, scheduled)
        known = self._steps.get(memo)
        if known is None:
            known = self._plain_step(program, stage, connection)
            # Where nothing differs by seed, the only key is kept in the step, and depends on the inputs.
            if known.per_seed or not connection.links:
                self._steps[memo] = known
        return known

    def _plain_step(self, program: Program, stage: Stage, connection: Connection) -> Step:
        identity = self._keyer.identity(stage, scheduled=(program.experiment.name, stage.name) in self._best)
        per_seed = self._inherits_seed(program, connection) or identity.seeded
        return Step(stage=stage, identity=identity, connection=connection, per_seed=per_seed)

    def _inherits_seed(self, program: Program, connection: Connection) -> bool:
        """Whether any input differs by seed; compiles every input."""
        return True in [self.target(program, link).per_seed for link in connection.links]

    def _chosen_step(self, program: Program, stage: Stage, connection: Connection) -> Step:
        """Return the step of a stage in a study with sweeps: with what was chosen, or late while nothing is."""
        if is_select(stage.spec):
            return self._select_step(program, stage)
        chosen: dict[str, Any] = {}
        settled, late = set(), []
        for position, link in enumerate(connection.links):
            target = self.target(program, link)
            if not is_select(target.stage.spec):
                chosen.update(inherited(stage, target.chosen) if link.experiment is None else {})
            elif target.choice is None:
                late.append(target.key)
            else:
                chosen.update(target.choice)
                settled.add(position)
        if settled:
            stage = without_needs(stage, settled)
            connection = self._connection(program, stage)
        step = self._plain_step(program, vary(stage, chosen) if chosen else stage, connection)
        step.late, step.chosen = tuple(late), chosen
        return step

    def _select_step(self, program: Program, stage: Stage) -> Step:
        """Return the step of a select stage: its trials, its key, and what it chose where it is done."""
        swept = swept_stage(program.experiment, stage)
        links = self._connection(program, swept).links
        plain = without_needs(swept, {position for position, link in enumerate(links) if link.kind == stage.kind})
        connection = self._connection(program, plain)
        before: dict[str, Any] = {}
        for link in connection.links:
            if link.experiment is None:
                before.update(inherited(plain, self.target(program, link).chosen))
        select = parameters_of(stage)
        seeds = select.seeds or self.study.seeds[:1]
        trials, rows = [], []
        for values in combinations(select):
            trial = self._plain_step(program, vary(plain, {**before, **values}), connection)
            trials.append((values, trial))
            for seed in seeds if trial.per_seed else seeds[:1]:
                key = self.key_of(program, trial, seed)
                rows.append(InputKey(kind=trial.stage.kind, key=key, reference=reference_of(values)))
        alone = without_needs(stage, range(len(stage.needs)))
        step = self._plain_step(program, stage, self._connection(program, alone))
        step.sweep = Sweep(trials=trials, seeds=seeds)
        step.key = run_key(step.identity, inputs=rows)
        step.choice = self._choices(step.key)
        return step

    def _form(self, experiment: Experiment) -> Form:
        """Return the form of an experiment's pipeline, found once for all that share it."""
        stages = experiment.stages
        memo: tuple[object, ...] = tuple([(stage.name, stage.kind, id(stage.needs)) for stage in stages])
        known = self._forms.get(memo)
        if known is not None:
            return known
        if any(need.experiment is not None for stage in stages for need in stage.needs):
            # A need of another experiment's stage is one's own stage for that experiment itself.
            memo = (experiment.name, *memo)
        if memo not in self._forms:
            order = in_order(experiment)
            names = tuple([stages[position].name for position in order])
            positions = {name: position for position, name in enumerate(names)}
            self._forms[memo] = Form(order=order, names=names, positions=positions, connections={})
        return self._forms[memo]

    def _connection_at(self, program: Program, position: int) -> Connection:
        connections = program.form.connections
        known = connections.get(position)
        if known is None:
            known = connections[position] = self._connection(program, program.stages[position])
        return known

    def _connection(self, program: Program, stage: Stage) -> Connection:
        links = tuple([self._link(program, stage, need) for need in stage.needs])
        return connect(links)

    def _link(self, program: Program, stage: Stage, need: Need) -> Link:
        own = program.experiment.name
        reference = need.text or ".".join(filter(None, (need.experiment, need.stage)))
        other = None if need.experiment in (None, own) else need.experiment
        if other is not None and other not in self.study.experiments:
            raise ConfigError(f"{own}.{stage.name} needs {reference!r}: there is no experiment {other!r}")
        holder = program if other is None else self.opened(other)
        position = holder.form.positions.get(need.stage)
        if position is None:
            there = f"{holder.experiment.name} has the stages {', '.join(holder.form.names)}"
            raise ConfigError(f"{own}.{stage.name} needs {reference!r}, which is no stage; {there}")
        return Link(
            reference=reference,
            kind=holder.stages[position].kind,
            checkpoint=need.checkpoint,
            position=position,
            experiment=other,
        )


def _survey(study: Study) -> tuple[set[tuple[str, str]], bool]:
    """Return which stages have their best checkpoint or best value consumed, and whether any stage selects."""
    best: set[tuple[str, str]] = set()
    seen: dict[int, bool] = {}
    has_selects = False
    for name, experiment in study.experiments.items():
        for stage in experiment.stages:
            special = seen.get(id(stage))
            if special is None:
                special = is_select(stage.spec) or any([need.checkpoint == "best" for need in stage.needs])
                seen[id(stage)] = special
            if not special:
                continue
            best.update((need.experiment or name, need.stage) for need in stage.needs if need.checkpoint == "best")
            if is_select(stage.spec):
                has_selects = True
                if parameters_of(stage).at == "best":
                    best.add((name, swept_stage(experiment, stage).name))
    for comparison in study.comparisons:
        if comparison.at == "best" or any(metric.endswith("@best") for metric in _metrics(comparison)):
            for arm in comparison.arms:
                stages = study.experiments[arm].stages
                best.update((arm, stage.name) for stage in stages if stage.spec.makes_checkpoints)
    return best, has_selects


def _metrics(comparison: Comparison) -> list[str]:
    return [comparison.metric, *(condition.metric for condition in comparison.criterion.conditions)]
