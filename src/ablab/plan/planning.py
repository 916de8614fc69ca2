"""Makes the plan: experiments x seeds x stages become runs, equal ones become one, in the order they should start.

Each distinct stage is hashed once; a run only mixes its inputs and seed in (`ablab.plan.keys`). Runs come out seed by
seed, within a seed by priority, inputs first. What a run costs is `ablab.plan.estimate`'s, where it stands
`ablab.plan.statuses`'s.
"""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase

from ablab.contract.collector import collector_paused
from ablab.contract.failure import ConfigError
from ablab.plan.expansion import Expansion
from ablab.plan.gates import expectation, gate_states
from ablab.plan.graph import Plan
from ablab.plan.keys import Keyer
from ablab.plan.programs import Programs
from ablab.plan.references import References
from ablab.plan.statuses import choice_of, find_lost_weights, folders_by_key, read_statuses
from ablab.store.layout import Store
from ablab.study.problems import nearest
from ablab.study.schema import Experiment, Study


def make_plan(
    study: Study,
    store: Store | None,
    *,
    only: Sequence[str] | None = None,
    seeds: Sequence[int] | None = None,
    slots: int | None = None,
) -> Plan:
    """Return the plan of a study as the store stands now.

    Args:
        study: the resolved study.
        store: where runs are; None plans as if there were none.
        only: experiments (names or fnmatch patterns); what they need of others stays in the plan.
        seeds: seeds; each experiment keeps those of its own that are listed.
        slots: runs side by side, for the forecast; None takes what this machine would run.

    Raises:
        ConfigError: a name, pattern or seed that the study does not have, or needs in a circle.
    """
    from ablab.plan.estimate import forecast

    with collector_paused():
        references = References(study.path)
        keyer = Keyer(
            task=study.task.name,
            task_files=study.task.files,
            resolve=references.resolve,
            digest=references.digest,
        )
        wanted = _with_gates(study, select_experiments(study, only))
        _check_seeds(study, wanted, seeds)
        folders = folders_by_key(store)
        programs = Programs(study, keyer, lambda key: choice_of(store, folders.get(key)))
        expansion = Expansion(programs)
        plan = expansion.expand(wanted, None if seeds is None else frozenset(seeds))
        read_statuses(plan.runs.values(), store, folders)
        expansion.drop_idle_trials(plan)
        find_lost_weights(plan, store)
        plan.gates = gate_states(plan, store)
        forecast(plan, store, slots=slots)
    return plan


def select_experiments(study: Study, only: Sequence[str] | None) -> list[Experiment]:
    """Return the experiments that names or patterns mean, in the order of the study; ConfigError for one in vain."""
    if not only:
        return list(study.experiments.values())
    chosen: set[str] = set()
    for pattern in only:
        if pattern in study.experiments:
            chosen.add(pattern)
            continue
        matching = [name for name in study.experiments if fnmatchcase(name, pattern)]
        if not matching:
            hint = nearest(pattern, study.experiments)
            raise ConfigError(
                f"--only {pattern}: the study {study.name} has no such experiment"
                + (f"; did you mean {hint}?" if hint else f"; there are {', '.join(list(study.experiments)[:20])}")
            )
        chosen.update(matching)
    return [experiment for name, experiment in study.experiments.items() if name in chosen]


def _with_gates(study: Study, wanted: list[Experiment]) -> list[Experiment]:
    """Return the experiments with those whose gates hold them, in the order of the study."""
    names = {experiment.name for experiment in wanted}
    return [
        experiment
        for experiment in study.experiments.values()
        if experiment.name in names
        or (experiment.gate is not None and expectation(study, experiment.name, experiment.gate) is not None)
    ]


def _check_seeds(study: Study, experiments: Sequence[Experiment], seeds: Sequence[int] | None) -> None:
    known = set(study.seeds).union(*(experiment.seeds for experiment in experiments))
    unknown = [seed for seed in seeds or () if seed not in known]
    if unknown:
        listed = ", ".join(map(str, sorted(known)))
        raise ConfigError(f"--seeds {unknown[0]}: the study {study.name} has the seeds {listed}")
