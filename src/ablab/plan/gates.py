"""Gates: an experiment whose result must come near a number from elsewhere before the rest may run.

A gate says whether the set-up can be believed at all (does the evaluation reproduce what was published?). It is no
data dependency: it enters no key and no critical path, and only holds runs back. What a held run means for a launch is
`ablab.launch.board`'s.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from functools import partial
from statistics import fmean

from ablab.plan.graph import GateState, Plan, Run
from ablab.store.layout import Store
from ablab.study.schema import Experiment, Gate, Study


def gate_states(plan: Plan, store: Store | None) -> tuple[GateState, ...]:
    """Return where each gate of a plan stands, by the results in the store."""
    gated = [experiment for experiment in plan.study.experiments.values() if experiment.gate is not None]
    return tuple(state for each in gated if (state := _state(plan, store, each)) is not None)


def refresh(plan: Plan, store: Store, *, finished: Collection[str]) -> tuple[GateState, ...]:
    """Look again at the gates that wait; `finished` are keys that are done by now."""
    for gate in plan.gates:
        if gate.status == "waiting" and all(key in finished or plan.runs[key].finished for key in gate.keys):
            return gate_states(plan, store)
    return plan.gates


def _state(plan: Plan, store: Store | None, experiment: Experiment) -> GateState | None:
    gate = experiment.gate
    assert gate is not None
    keys = tuple(dict.fromkeys(key for (name, _, _), key in plan.by_user.items() if name == experiment.name))
    if not keys or experiment.planned:
        return None
    expected = expectation(plan.study, experiment.name, gate)
    state = partial(GateState, experiment=experiment.name, metric=gate.metric, within=gate.within, keys=keys)
    if expected is None:
        return state(status="open")
    held = frozenset(plan.runs) - _needed(plan, keys)
    values = _values(plan, store, keys, gate.metric)
    if values is None:
        return state(status="waiting", expected=expected, held=held)
    if not values:
        return state(status="held", expected=expected, held=held)
    found = fmean(values)
    passed = abs(found - expected) <= gate.within * abs(expected)
    return state(status="passed" if passed else "held", expected=expected, found=found, held=held)


def expectation(study: Study, experiment: str, gate: Gate) -> float | None:
    """Return the number a gate must come near: its own, or in the full profile the reference of the experiment."""
    if gate.reference is not None:
        return gate.reference
    if study.profile != "full" or experiment not in study.references:
        return None
    return study.references[experiment].values.get(gate.metric)


def _values(plan: Plan, store: Store | None, keys: Iterable[str], metric: str) -> list[float] | None:
    """Return the metric by seed, from the last stage that has it; None while a run is not done."""
    found: dict[int | None, float] = {}
    for key in keys:
        run = plan.runs[key]
        result = store.run(run.name).read_result() if store is not None else None
        if result is None:
            return None
        if metric in result.metrics:
            found[run.seed] = result.metrics[metric]
    return list(found.values())


def _needed(plan: Plan, keys: Iterable[str]) -> frozenset[str]:
    """Return these runs and all they need."""
    found: set[str] = set()
    stack = list(keys)
    while stack:
        key = stack.pop()
        if key not in found:
            found.add(key)
            run: Run = plan.runs[key]
            stack += [given.key for given in run.inputs]
            stack += [late for late in run.late if late in plan.runs]
    return frozenset(found)


def waits_for(plan: Plan) -> Mapping[str, frozenset[str]]:
    """Return which gates' runs each held run waits for, while the gates are not decided; shared where equal."""
    waiting = [gate for gate in plan.gates if gate.status == "waiting"]
    if not waiting:
        return {}
    shared: dict[frozenset[str], frozenset[str]] = {}
    found: dict[str, frozenset[str]] = {}
    for key in plan.runs:
        keys = frozenset(one for gate in waiting if key in gate.held for one in gate.keys)
        if keys:
            found[key] = shared.setdefault(keys, keys)
    return found
