"""Turns programs into runs: seed by seed, within a seed by priority, inputs first, equal work once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from ablab.plan.connections import Connection, Link
from ablab.plan.graph import NOTHING_CHOSEN, Plan, Run, RunInput
from ablab.plan.keys import finish_key
from ablab.plan.programs import Program, Programs, Step
from ablab.plan.sweeps import reference_of
from ablab.study.schema import Experiment

User = tuple[str, int]


class Users(Mapping[tuple[str, int, str], str]):
    """The key of each (experiment, seed, stage): kept by experiment and seed, since plans hold 10^5 runs."""

    def __init__(self) -> None:
        self._rows: dict[User, tuple[Program, list[str]]] = {}

    def add(self, user: User, program: Program, keys: list[str]) -> None:
        """Note the keys of an experiment's steps for a seed, by position."""
        self._rows[user] = (program, keys)

    def __getitem__(self, place: tuple[str, int, str]) -> str:
        experiment, seed, stage = place
        program, keys = self._rows[experiment, seed]
        return keys[program.form.positions[stage]]

    def __iter__(self) -> Iterator[tuple[str, int, str]]:
        for (experiment, seed), (program, _) in self._rows.items():
            for stage in program.form.names:
                yield experiment, seed, stage

    def __len__(self) -> int:
        return sum(len(keys) for _, keys in self._rows.values())


class Expansion:
    """The runs of a plan while it is made."""

    def __init__(self, programs: Programs) -> None:
        self._programs = programs
        self._runs: dict[str, Run] = {}
        self._trials: dict[str, list[str]] = {}
        self._swept: set[tuple[str, str]] = set()
        self._inherits = False

    def expand(self, experiments: Sequence[Experiment], seeds: frozenset[int] | None) -> Plan:
        """Return the plan of these experiments and of what they need, without statuses and estimates.

        Args:
            experiments: what is wanted.
            seeds: only these; None takes every experiment's own.
        """
        study = self._programs.study
        ranked = sorted(experiments, key=lambda experiment: -experiment.priority)
        programs = [(self._programs.compiled(one.name), one.seeds or study.seeds) for one in ranked]
        users = Users()
        for seed in dict.fromkeys((*study.seeds, *(seed for _, own in programs for seed in own))):
            if seeds is not None and seed not in seeds:
                continue
            for program, own in programs:
                if seed in own:
                    user = (program.experiment.name, seed)
                    users.add(user, program, self._visit(program, None, seed, user, program.experiment))
        if self._inherits:
            _pass_on(self._runs)
        return Plan(study=study, runs=self._runs, by_user=users)

    def drop_idle_trials(self, plan: Plan) -> None:
        """Take out trials that are not done although their sweep is decided, unless something else uses them."""
        if not self._trials:
            return
        used = set(plan.by_user.values())
        for select, trials in self._trials.items():
            run = plan.runs[select]
            idle = {key for key in trials if key not in used and plan.runs[key].status != "done"}
            if run.status == "done":
                run.inputs = [given for given in run.inputs if given.key not in idle]
            else:
                used.update(idle)
        for key in {key for trials in self._trials.values() for key in trials} - used:
            if plan.runs[key].status != "done":
                del plan.runs[key]

    def _visit(
        self, program: Program, positions: Iterable[int] | None, seed: int, user: User, asking: Experiment
    ) -> list[str]:
        """Make or share the runs of a program's steps (None: all) for a seed and user; return keys by position."""
        runs, steps = self._runs, program.steps
        keys = [""] * len(steps)
        for position in range(len(steps)) if positions is None else positions:
            step = steps[position]
            assert step is not None
            connection = step.connection
            if connection.local is not None:
                given = tuple([keys[local] for local in connection.local])
            else:
                given = self._given(connection, keys, seed, user, asking)
            key = step.key or finish_key(step.identity, connection.text(given), seed)
            keys[position] = key
            run = runs.get(key)
            if run is None:
                inputs = connection.inputs(given) if step.sweep is None else self._sweep(program, step, user, asking)
                runs[key] = self._run(key, step, seed, user, inputs, asking)
                if not step.per_seed:
                    step.key = key
                continue
            if run.users[-1] is not user:
                if step.sweep is not None:
                    self._sweep(program, step, user, asking)
                _share(run, user, asking)
            if step.chosen:
                # A trial may have made it, which chose nothing.
                run.chosen = step.chosen
        return keys

    def _given(
        self, connection: Connection, keys: Sequence[str], seed: int, user: User, asking: Experiment
    ) -> tuple[str, ...]:
        """Return the keys of inputs where some are of other experiments."""
        return tuple([self._input(link, keys, seed, user, asking) for link in connection.links])

    def _input(self, link: Link, keys: Sequence[str], seed: int, user: User, asking: Experiment) -> str:
        """Return the key of an input; that of another experiment is made with all it needs, for the same seed."""
        if link.experiment is None:
            return keys[link.position]
        other = self._programs.opened(link.experiment)
        return self._visit(other, other.closure([link.position]), seed, user, asking)[link.position]

    def _run(self, key: str, step: Step, seed: int, user: User, inputs: list[RunInput], asking: Experiment) -> Run:
        identity = step.identity
        if step.late or identity.unresolved:
            self._inherits = True
        # By position: matching a dozen keywords takes longer than all the rest of a run.
        return Run(
            key,
            step.stage,
            seed if step.per_seed else None,
            [user],
            inputs,
            asking.priority,
            "planned" if asking.planned else "pending",
            identity.unresolved,
            step.late,
            step.chosen or NOTHING_CHOSEN,
            identity.config,
        )

    def _sweep(self, program: Program, step: Step, user: User, asking: Experiment) -> list[RunInput]:
        """Make or share the trials of a select step, once for each experiment that asks; return them as inputs."""
        inputs: list[RunInput] = []
        if step.sweep is None or (step.key, user[0]) in self._swept:
            return inputs
        self._swept.add((step.key, user[0]))
        for values, trial in step.sweep.trials:
            for seed in step.sweep.seeds if trial.per_seed else step.sweep.seeds[:1]:
                connection = trial.connection
                needs = program.closure([link.position for link in connection.links if link.experiment is None])
                keys = self._visit(program, needs, seed, user, asking)
                given = self._given(connection, keys, seed, user, asking)
                key = self._programs.key_of(program, trial, seed)
                known = self._runs.get(key)
                if known is None:
                    self._runs[key] = self._run(key, trial, seed, user, connection.inputs(given), asking)
                elif user not in known.users:
                    _share(known, user, asking)
                inputs.append(RunInput(key=key, reference=reference_of(values)))
                self._trials.setdefault(step.key, []).append(key)
        return inputs


def _share(run: Run, user: User, asking: Experiment) -> None:
    """Note one more user of a run: it starts as early as any of them wants, and a planned arm holds nobody back."""
    run.users.append(user)
    if asking.priority > run.priority:
        run.priority = asking.priority
    if run.status == "planned" and not asking.planned:
        run.status = "pending"


def _pass_on(runs: Mapping[str, Run]) -> None:
    """Let runs inherit from their inputs what is unresolved and what is late; an unresolved run never starts."""
    for run in runs.values():
        for given in run.inputs:
            source = runs[given.key]
            if source.unresolved:
                run.unresolved = tuple(dict.fromkeys((*run.unresolved, *source.unresolved)))
            if source.late:
                run.late = tuple(dict.fromkeys((*run.late, *source.late)))
        if run.unresolved and run.status == "pending":
            run.status = "unresolved"
