"""Select stages: their trials, and what becomes of the plan once they have chosen."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ablab.contract.failure import ConfigError
from ablab.contract.result import Result
from ablab.plan.graph import Plan, Run
from ablab.plan.planning import make_plan
from ablab.store.layout import Store
from ablab.study.loading import load

RATE = "pipeline.train.optimizer.learning_rate"


def swept(toy: Any, *, seeds: tuple[int, ...] | None = (1,), **sweep: Any) -> tuple[Any, ...]:
    values = sweep or {RATE: (1e-3, 1e-4)}
    return (
        toy.stage("prepare"),
        toy.stage("choose", "", kind="select", sweep=values, seeds=seeds),
        toy.stage("train", "prepare choose"),
        toy.stage("evaluate", "prepare train"),
    )


def choose(toy: Any, store: Store, plan: Plan, values: dict[str, Any], *, trials: bool = True) -> Run:
    """Finish the select run (and its trials) of a plan."""
    run = next(run for run in plan.runs.values() if run.stage.name == "choose")
    if trials:
        for given in run.inputs:
            toy.finish(store, plan.runs[given.key])
            if (prepare := plan.runs[given.key].inputs[0].key) and not store.run(plan.runs[prepare].name).done:
                toy.finish(store, plan.runs[prepare])
    toy.finish(store, run, facts={"chosen": values})
    return run


def test_before_the_choice_the_needing_stage_is_late(toy: Any, store: Store) -> None:
    plan = make_plan(toy.study({"A": swept(toy)}, seeds=(1, 2)), store)
    select = plan.run_of("A", 1, "choose")
    assert select is not None and select is plan.run_of("A", 2, "choose") and select.seed is None
    trials = [plan.runs[given.key] for given in select.inputs]
    assert [run.stage.parameters.optimizer.learning_rate for run in trials] == [1e-3, 1e-4]
    assert [given.reference for given in select.inputs] == [f'{{"{RATE}":0.001}}', f'{{"{RATE}":0.0001}}']
    assert all(run.seed == 1 and run.late == () and len(run.inputs) == 1 for run in trials)
    for name in ("train", "evaluate"):
        for seed in (1, 2):
            run = plan.run_of("A", seed, name)
            assert run is not None and run.late == (select.key,) and run not in trials
    train = plan.run_of("A", 2, "train")
    assert train is not None and [plan.runs[given.key].stage.name for given in train.inputs] == ["prepare", "choose"]
    order = list(plan.runs)
    assert all(order.index(given.key) < order.index(run.key) for run in plan.runs.values() for given in run.inputs)


def test_trials_are_ordinary_runs_shared_with_equal_ones(toy: Any) -> None:
    plain = toy.usual(optimizer={"learning_rate": 1e-4})
    plan = make_plan(toy.study({"A": swept(toy), "B": plain}, seeds=(1,)), None)
    select, other = plan.run_of("A", 1, "choose"), plan.run_of("B", 1, "train")
    assert select is not None and other is not None
    assert select.inputs[1].key == other.key and other.users == [("A", 1), ("B", 1)]


def test_after_the_choice_keys_are_those_of_the_chosen_values(toy: Any, store: Store) -> None:
    study = toy.study({"A": swept(toy)}, seeds=(1, 2))
    before = make_plan(study, store)
    select = choose(toy, store, before, {RATE: 1e-4})
    plan = make_plan(study, store)
    plain = make_plan(toy.study({"A": toy.usual(optimizer={"learning_rate": 1e-4})}, seeds=(1, 2)), store)
    for seed in (1, 2):
        for name in ("prepare", "train", "evaluate"):
            assert plan.by_user["A", seed, name] == plain.by_user["A", seed, name]
    train = plan.run_of("A", 1, "train")
    assert train is not None and train.status == "done" and train.late == () and train.chosen == {RATE: 1e-4}
    assert [plan.runs[given.key].stage.name for given in train.inputs] == ["prepare"]
    again, evaluation = plan.run_of("A", 2, "train"), plan.run_of("A", 2, "evaluate")
    assert again is not None and again.status == "pending" and again.stage.parameters.optimizer.learning_rate == 1e-4
    assert evaluation is not None and evaluation.late == () and evaluation.status == "pending"
    assert plan.runs[select.key].status == "done" and len(plan.runs[select.key].inputs) == 2
    assert not {key for key, run in before.runs.items() if run.late} & set(plan.runs)


def test_trials_that_are_gone_are_not_made_again_for_a_choice_that_stands(toy: Any, store: Store) -> None:
    study = toy.study({"A": swept(toy)}, seeds=(2,))
    select = choose(toy, store, make_plan(study, store), {RATE: 1e-4}, trials=False)
    plan = make_plan(study, store)
    assert plan.runs[select.key].inputs == []
    assert [(run.stage.name, run.seed) for run in plan.runs.values()] == [
        ("prepare", None),
        ("choose", None),
        ("train", 2),
        ("evaluate", 2),
    ]


def test_a_trial_at_a_seed_of_the_study_is_kept_as_its_run(toy: Any, store: Store) -> None:
    study = toy.study({"A": swept(toy)}, seeds=(1,))
    select = choose(toy, store, make_plan(study, store), {RATE: 1e-4}, trials=False)
    plan = make_plan(study, store)
    train = plan.run_of("A", 1, "train")
    assert train is not None and [given.key for given in plan.runs[select.key].inputs] == [train.key]


def test_every_combination_is_tried_at_every_seed(toy: Any) -> None:
    values = {RATE: (1e-3, 1e-4), "model.width": (8, 16, 32)}
    plan = make_plan(toy.study({"A": swept(toy, seeds=(5, 6), **values)}, seeds=(1,)), None)
    select = plan.run_of("A", 1, "choose")
    assert select is not None and len(select.inputs) == 12 and len({given.key for given in select.inputs}) == 12
    assert {plan.runs[given.key].seed for given in select.inputs} == {5, 6}
    tried = [(plan.runs[g.key].stage.parameters.optimizer.learning_rate, plan.runs[g.key].stage.sections["model"].width)
             for g in select.inputs]  # fmt: skip
    assert tried[:4] == [(1e-3, 8), (1e-3, 8), (1e-3, 16), (1e-3, 16)]


def test_without_seeds_the_first_of_the_study_is_taken(toy: Any) -> None:
    plan = make_plan(toy.study({"A": swept(toy, seeds=None)}, seeds=(8, 1)), None, seeds=[1])
    select = plan.run_of("A", 1, "choose")
    assert select is not None and {plan.runs[given.key].seed for given in select.inputs} == {8}


def test_a_chosen_section_holds_for_what_builds_on_it(toy: Any, store: Store) -> None:
    study = toy.study({"A": swept(toy, **{"model.width": (16, 32)})}, seeds=(1,))
    choose(toy, store, make_plan(study, store), {"model.width": 32})
    plan = make_plan(study, store)
    plain = make_plan(toy.study({"A": toy.usual(model={"width": 32})}, seeds=(1,)), store)
    evaluation = plan.run_of("A", 1, "evaluate")
    assert evaluation is not None and evaluation.stage.sections["model"].width == 32
    assert plan.by_user["A", 1, "evaluate"] == plain.by_user["A", 1, "evaluate"]


def test_the_key_of_a_select_run_depends_on_its_trials_and_its_rule(toy: Any) -> None:
    def key(**changes: Any) -> str:
        stages = list(swept(toy))
        if "train" in changes:
            stages[2] = toy.stage("train", "prepare choose", **changes["train"])
        if "rule" in changes:
            stages[1] = toy.stage(
                "choose", "", kind="select", sweep={RATE: (1e-3, 1e-4)}, seeds=(1,), **changes["rule"]
            )
        return make_plan(toy.study({"A": stages}, seeds=(1,)), None).by_user["A", 1, "choose"]

    assert len({key(), key(train={"steps": 7}), key(rule={"mode": "max"}), key(rule={"metric": "val/x"})}) == 4


def test_a_choice_at_best_makes_the_schedule_count(toy: Any) -> None:
    def trial(at: str, every: int) -> str:
        stages = list(swept(toy))
        stages[1] = toy.stage("choose", "", kind="select", sweep={RATE: (1e-3,)}, at=at)
        stages[2] = toy.stage("train", "prepare choose", validation={"every": every})
        plan = make_plan(toy.study({"A": stages}, seeds=(1,)), None)
        return plan.runs[plan.by_user["A", 1, "choose"]].inputs[0].key

    assert trial("last", 2) == trial("last", 3)
    assert trial("best", 2) != trial("best", 3)


def test_two_sweeps_after_each_other(toy: Any, store: Store) -> None:
    second = "pipeline.tune.batch"
    stages = (
        *swept(toy)[:3],
        toy.stage("again", "", kind="select", sweep={second: (2, 4)}, seeds=(1,)),
        toy.stage("tune", "train again", kind="train"),
    )
    study = toy.study({"A": stages}, seeds=(1,))
    plan = make_plan(study, store)
    first, later = plan.run_of("A", 1, "choose"), plan.run_of("A", 1, "again")
    tune = plan.run_of("A", 1, "tune")
    assert first is not None and later is not None and tune is not None
    assert later.late == (first.key,) and set(tune.late) == {first.key, later.key}
    choose(toy, store, plan, {RATE: 1e-4})
    plan = make_plan(study, store)
    later, tune = plan.run_of("A", 1, "again"), plan.run_of("A", 1, "tune")
    assert later is not None and later.late == () and tune is not None and tune.late == (later.key,)
    toy.finish(store, later, facts={"chosen": {second: 4}})
    plan = make_plan(study, store)
    tune = plan.run_of("A", 1, "tune")
    assert tune is not None and tune.late == () and tune.stage.parameters.batch == 4
    assert tune.stage.parameters.optimizer.learning_rate == 3e-4 and tune.chosen == {second: 4}


def test_a_select_stage_that_nobody_needs_is_an_error(toy: Any) -> None:
    stages = (toy.stage("prepare"), toy.stage("choose", "", kind="select", sweep={RATE: (1,)}), toy.stage("train"))
    with pytest.raises(ConfigError, match="no stage needs it"):
        make_plan(toy.study({"A": stages}), None)


def test_a_sweep_from_yaml(tmp_path: Path, store: Store) -> None:
    path = tmp_path / "sweep.yaml"
    path.write_text(
        """
name: sweep
task: language-modeling
seeds: [1, 2]
defaults:
  data: {source: austen, tokenizer: {name: bytes}}
  model: {width: 32, layers: 1, heads: 2, context: 16}
  pipeline:
    rate: {kind: select, sweep: {pipeline.train.optimizer.learning_rate: [1e-3, 3e-3]}}
    train: {steps: 10, needs: [prepare, rate]}
experiments:
  A: {}
  B: {model: {attention: {query_key: frozen-orthogonal}}}
"""
    )
    study = load(path)
    plan = make_plan(study, store)
    assert plan.by_user["A", 1, "rate"] != plan.by_user["B", 1, "rate"]
    for name, value in (("A", 1e-3), ("B", 3e-3)):
        run = plan.run_of(name, 1, "rate")
        assert run is not None
        folder = store.run(run.name).create()
        folder.write_result(Result(key=run.key, facts={"chosen": {RATE: value}}))
    plan = make_plan(study, store)
    rates = {name: plan.runs[plan.by_user[name, 2, "train"]].stage.parameters.optimizer.learning_rate for name in "AB"}
    assert rates == {"A": 1e-3, "B": 3e-3}
    assert not any(run.late for run in plan.runs.values())
