"""Forecasts against figures worked out by hand."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from ablab.contract.order import Numerics
from ablab.contract.result import Result
from ablab.contract.state import State
from ablab.plan.configurations import Configurations, probe_folder, rehearsal_folder
from ablab.plan.devices import Devices, devices
from ablab.plan.estimate import forecast, summarize
from ablab.plan.graph import Plan, Run
from ablab.plan.history import length_of
from ablab.plan.planning import make_plan
from ablab.store.claims import acquire
from ablab.store.layout import RunFolder, Store
from ablab.study.loading import load
from ablab.study.schema import Compute, Retention

TIME = {"start-up": 2.0, "data": 1.0, "forward-backward": 80.0, "optimizer": 9.0, "validation": 20.0}


def run_of(plan: Plan, experiment: str = "A", seed: int = 1, stage: str = "train") -> Run:
    run = plan.run_of(experiment, seed, stage)
    assert run is not None
    return run


def probe(store: Store, plan: Plan, run: Run, *, word: str = "probe", device: str | None = None, **facts: Any) -> None:
    place = probe_folder if word == "probe" else rehearsal_folder
    folder: RunFolder = place(store, run, Configurations(plan).of(run.key)).create()
    named = {name.replace("__", "."): value for name, value in facts.items()}
    numerics = Numerics(device_name=devices().cpu if device is None else device)
    folder.write_result(Result(key=run.key, facts=named, numerics=numerics))


def test_nothing_is_known_of_an_empty_store(toy: Any, store: Store) -> None:
    plan = make_plan(toy.study({"A": toy.usual()}), store)
    assert (plan.seconds_left, plan.bytes_left, plan.unknown) == (None, None, 7)
    assert run_of(plan).estimate is None and run_of(plan).estimate_source == ""


def test_a_finished_plan_leaves_nothing(toy: Any, store: Store) -> None:
    study = toy.study({"A": toy.usual()}, seeds=(1,))
    for run in make_plan(study, store).runs.values():
        toy.finish(store, run, time={"other": 5.0})
    plan = make_plan(study, store)
    assert (plan.seconds_left, plan.critical_seconds, plan.bytes_left, plan.unknown) == (0.0, 0.0, 0, 0)


def test_another_seed_takes_what_the_first_took(toy: Any, store: Store) -> None:
    study = toy.study({"A": toy.usual()}, seeds=(1, 2, 3))
    for seed, factor in ((1, 1.0), (2, 1.5)):
        run = run_of(make_plan(study, store), seed=seed)
        toy.finish(store, run, time={name: value * factor for name, value in TIME.items()})
        (store.run(run.name).path / "checkpoints").mkdir()
        (store.run(run.name).path / "checkpoints" / "weights").write_bytes(b"x" * 5000)
    run = run_of(make_plan(study, store), seed=3)
    # The median of 112 and 168 s.
    assert run.estimate == pytest.approx(140.0)
    assert run.estimate_source == "history: 2 runs of this configuration"
    assert run.bytes is not None and 5000 < run.bytes < 7000


def test_steps_and_validations_scale_and_start_up_does_not(toy: Any, store: Store) -> None:
    arms = {
        "A": toy.usual(steps=100, validation={"every": 50}),
        "B": toy.usual(steps=300, validation={"every": 75}, optimizer={"learning_rate": 1e-3}),
    }
    study = toy.study(arms, seeds=(1,))
    toy.finish(store, run_of(make_plan(study, store)), time=TIME, facts={"steps.done": 100})
    run = run_of(make_plan(study, store), "B")
    # 2 s start-up, 90 s of steps three times, two validations of 10 s become four.
    assert run.estimate == pytest.approx(2 + 90 * 3 + 10 * 4)
    assert run.estimate_source == "history: 1 run with the same step, scaled"


def test_the_last_step_always_validates(toy: Any) -> None:
    lengths = [
        length_of(toy.stage("train", steps=100, validation={"every": every})).validations
        for every in (None, 30, 50, 500)
    ]
    assert lengths == [1, 4, 2, 1]


def test_epochs_become_steps_by_the_samples_seen(toy: Any, store: Store) -> None:
    arms = {"A": toy.usual(steps=100), "B": toy.usual(epochs=2)}
    study = toy.study(arms, seeds=(1,))
    facts = {"steps.done": 100, "samples.train": 1203}
    toy.finish(store, run_of(make_plan(study, store)), time={"other": 50.0}, facts=facts)
    # 2 x 1203 / 8 = 300.75, so 301 steps at half a second.
    assert run_of(make_plan(study, store), "B").estimate == pytest.approx(150.5)


def test_an_epoch_over_other_data_scales_by_its_rows(toy: Any, store: Store) -> None:
    arms = {"A": toy.usual(epochs=1), "B": toy.usual(data={"source": "more"}, epochs=1)}
    study = toy.study(arms, seeds=(1,))

    def rows(sections: Any, _: Any) -> dict[str, int]:
        return {"train": 9000} if sections["data"].source == "more" else {}

    prepare = study.experiments["B"].stages[0]
    told = dataclasses.replace(prepare, spec=dataclasses.replace(prepare.spec, samples=rows))
    larger = dataclasses.replace(study.experiments["B"], stages=(told, *study.experiments["B"].stages[1:]))
    study = dataclasses.replace(study, experiments={**study.experiments, "B": larger})
    facts = {"steps.done": 125, "samples.train": 1000}
    toy.finish(store, run_of(make_plan(study, store)), time={"start-up": 3.0, "other": 50.0}, facts=facts)
    # 9,000 / 8 = 1,125 steps, nine times as many.
    plan = make_plan(study, store)
    assert run_of(plan, "B").estimate == pytest.approx(3 + 450)
    assert run_of(plan, "B").estimate_source == "history: 1 run of this configuration over other data, scaled"
    other = dataclasses.replace(study, seeds=(1, 2))
    assert run_of(make_plan(other, store), seed=2).estimate == 53.0


def test_early_stopped_runs_count_with_the_steps_they_did(toy: Any, store: Store) -> None:
    arms = {"A": toy.usual(steps=100, early_stopping={}), "B": toy.usual(steps=100)}
    study = toy.study(arms, seeds=(1,))
    toy.finish(store, run_of(make_plan(study, store)), time={"other": 50.0}, facts={"steps.done": 50})
    assert run_of(make_plan(study, store), "B").estimate == pytest.approx(100.0)


def test_another_device_says_nothing(toy: Any, store: Store) -> None:
    study = toy.study({"A": toy.usual()}, seeds=(1, 2))
    run = run_of(make_plan(study, store))
    toy.finish(store, run, time=TIME, numerics=Numerics(device_name="another processor"))
    assert run_of(make_plan(study, store), seed=2).estimate is None


def test_a_gpu_is_the_device_of_stages_that_want_one(toy: Any, store: Store) -> None:
    study = toy.study({"A": toy.usual()}, seeds=(1, 2))
    plan = make_plan(study, store)
    gpu = Numerics(device="cuda", device_name="H100")
    toy.finish(store, run_of(plan, stage="prepare"), time={"other": 3.0})
    toy.finish(store, run_of(plan), time=TIME, numerics=gpu)
    plan = make_plan(study, store)
    forecast(plan, store, here=Devices(cpu=devices().cpu, gpu="H100", gpus=2))
    assert run_of(plan, seed=2).estimate == pytest.approx(112.0) and plan.slots == 2


def test_a_probe_is_steps_and_validations(toy: Any, store: Store) -> None:
    study = toy.study({"A": toy.usual(steps=100, validation={"every": 25}, batch=8)}, seeds=(1,))
    plan = make_plan(study, store)
    probe(store, plan, run_of(plan), step__seconds=0.3, samples__val=160, checkpoint__bytes=1000)
    run = run_of(make_plan(study, store))
    # 100 steps, and four validations of 20 batches at a third of a step.
    assert run.estimate == pytest.approx(100 * 0.3 + 4 * 20 * 0.1) and run.estimate_source == "probe"
    assert run.bytes == 2000
    rehearsed = {"step__seconds": 0.3, "validation__seconds": 7.0, "checkpoint__bytes": 1000}
    probe(store, plan, run_of(plan), word="rehearsal", **rehearsed)
    run = run_of(make_plan(study, store))
    assert run.estimate == pytest.approx(30 + 4 * 7.0) and run.estimate_source == "rehearsal"


def test_a_probe_counts_what_the_study_keeps(toy: Any, store: Store) -> None:
    stages = toy.usual(steps=100, checkpoints={"best": 3, "keep_every": 20})
    study = toy.study({"A": stages}, seeds=(1,), retention=Retention(best=2))
    plan = make_plan(study, store)
    probe(store, plan, run_of(plan), step__seconds=1.0, parameters__total=100, parameters__trained=50)
    # Last, the best two and every twentieth: 8 checkpoints of 100 x 4 bytes and two moments of 50 x 4.
    assert run_of(make_plan(study, store)).bytes == 8 * (400 + 400)


def test_probes_of_another_device_say_nothing(toy: Any, store: Store) -> None:
    study = toy.study({"A": toy.usual()}, seeds=(1,))
    plan = make_plan(study, store)
    probe(store, plan, run_of(plan), device="elsewhere", step__seconds=1.0)
    assert run_of(make_plan(study, store)).estimate is None


def test_the_study_s_estimate_is_its_training(toy: Any, store: Store) -> None:
    stages = (
        toy.stage("prepare"),
        toy.stage("one", "prepare", kind="train", steps=100),
        toy.stage("two", "prepare one", kind="train", steps=300),
        toy.stage("evaluate", "prepare two"),
    )
    study = toy.study({"A": stages}, seeds=(1, 2), options={"A": {"estimate": 3600.0}})
    plan = make_plan(study, store, slots=1)
    found = {name: run_of(plan, stage=name).estimate for name in ("prepare", "one", "two", "evaluate")}
    assert found == {"prepare": 0.0, "one": 900.0, "two": 2700.0, "evaluate": 0.0}
    assert run_of(plan, stage="two").estimate_source == "study"
    assert plan.seconds_left == 7200.0 and plan.unknown == 0


def test_history_wins_over_probe_over_estimate(toy: Any, store: Store) -> None:
    study = toy.study({"A": toy.usual()}, seeds=(1, 2), options={"A": {"estimate": 9.0}})
    plan = make_plan(study, store)
    assert run_of(plan, seed=2).estimate_source == "study"
    probe(store, plan, run_of(plan), step__seconds=1.0)
    assert run_of(make_plan(study, store), seed=2).estimate_source == "probe"
    toy.finish(store, run_of(plan), time=TIME)
    assert run_of(make_plan(study, store), seed=2).estimate_source.startswith("history")


def test_a_probe_wins_over_the_history_of_other_models(toy: Any, store: Store) -> None:
    study = toy.study({"A": toy.usual(), "B": toy.usual(model={"width": 99}, steps=200)}, seeds=(1,))
    plan = make_plan(study, store)
    toy.finish(store, run_of(plan), time={"other": 50.0}, facts={"steps.done": 100})
    other = run_of(make_plan(study, store), "B")
    assert other.estimate == pytest.approx(100.0) and other.estimate_source == "history: 1 run of other arms, scaled"
    probe(store, plan, run_of(plan, "B"), step__seconds=3.0)
    assert run_of(make_plan(study, store), "B").estimate == pytest.approx(600.0)


def test_runs_of_other_studies_count_where_their_steps_cost_the_same(toy: Any, store: Store) -> None:
    other = make_plan(toy.study({"X": toy.usual(steps=10)}, seeds=(5,)), store)
    toy.write_order(store, run_of(other, "X", 5))
    toy.finish(store, run_of(other, "X", 5), time={"other": 7.0}, facts={"steps.done": 10})
    arms = {"A": toy.usual(steps=100), "B": toy.usual(steps=100, model={"width": 77})}
    plan = make_plan(toy.study(arms, seeds=(1,)), store)
    assert run_of(plan).estimate == pytest.approx(70.0)
    assert run_of(plan, "B").estimate is None


def test_a_running_run_needs_what_it_says(toy: Any, store: Store) -> None:
    study = toy.study({"A": toy.usual(), "B": toy.usual(steps=5)}, seeds=(1,), options={"A": {"estimate": 1000.0}})
    run = run_of(make_plan(study, store))
    folder = store.run(run.name).create()
    folder.write_state(State(status="running", updated=0.0, remaining=40.0))
    with acquire(folder.claim_path):
        plan = make_plan(study, store, slots=1)
    assert plan.seconds_left == 40.0 and plan.unknown == 2
    assert run_of(plan).estimate == 1000.0


def test_slots_sharing_and_the_critical_path(toy: Any, store: Store) -> None:
    def arm(lead: float) -> Any:
        return (
            toy.stage("prepare"),
            toy.stage("base", "prepare", kind="train", steps=10),
            toy.stage("tune", "prepare base", kind="train", optimizer={"learning_rate": lead}, steps=10),
        )

    study = toy.study({"A": arm(1e-3), "B": arm(1e-4)}, seeds=(1,))
    plan = make_plan(study, store)
    seconds = {"prepare": 10.0, "base": 100.0, "tune": 50.0}

    def told(slots: int) -> Plan:
        for run in plan.runs.values():
            run.estimate = seconds[run.stage.name]
        plan.slots = slots
        summarize(plan, list(plan.runs.values()))
        return plan

    # prepare, base, then both tunes; alone each arm would do its own prepare and base.
    assert (told(1).seconds_left, plan.seconds_without_sharing) == (210.0, 320.0)
    assert (told(2).seconds_left, plan.seconds_without_sharing) == (160.0, 160.0)
    assert plan.critical_seconds == 160.0
    assert [plan.runs[key].stage.name for key in plan.critical_path] == ["prepare", "base", "tune"]


def test_slots_follow_the_study_and_the_cores(toy: Any, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ablab.plan.estimate.cores", lambda: 8)
    options = {name: {"estimate": 1.0} for name in "ABCD"}
    arms = {name: toy.usual(steps=n) for n, name in enumerate("ABCD", 1)}

    def slots(**compute: Any) -> int:
        study = toy.study(arms, seeds=(1,), options=options, compute=Compute(**compute))
        plan = make_plan(study, store)
        forecast(plan, store, here=Devices(cpu="x"))
        return plan.slots

    assert slots() == 4
    assert slots(threads=4) == 2
    assert slots(slots=3) == 3
    assert slots(processes=4) == 2


def test_planned_arms_cost_nothing_here(toy: Any, store: Store) -> None:
    study = toy.study({"A": toy.usual()}, seeds=(1,), options={"A": {"planned": True, "estimate": 100.0}})
    plan = make_plan(study, store)
    assert plan.seconds_left == 0.0 and run_of(plan).estimate == 100.0


def test_a_damaged_result_says_nothing(toy: Any, store: Store) -> None:
    study = toy.study({"A": toy.usual()}, seeds=(1, 2))
    run = run_of(make_plan(study, store))
    toy.finish(store, run, time=TIME)
    store.run(run.name).result_path.write_text("{")
    assert run_of(make_plan(study, store), seed=2).estimate is None


def test_a_planned_arm_s_estimate_is_not_that_of_a_run_it_shares(toy: Any, store: Store) -> None:
    options = {"A": {"planned": True, "estimate": 100.0}}
    plan = make_plan(toy.study({"A": toy.usual(), "B": toy.usual(steps=9)}, seeds=(1,), options=options), store)
    assert run_of(plan).estimate == 100.0 and run_of(plan, stage="prepare").status == "pending"
    assert run_of(plan, stage="prepare").estimate is None and run_of(plan, "B").estimate is None


def test_an_estimate_holds_for_the_profile_it_was_given_for(tmp_path: Path, store: Store) -> None:
    path = tmp_path / "s.yaml"
    path.write_text(
        "name: s\ntask: language-modeling\nseeds: [1]\n"
        "defaults: {data: {source: austen}, pipeline: {train: {steps: 100}}}\n"
        "experiments: {A: {estimate: 2h}}\n"
        "profiles:\n"
        "  small: {defaults: {pipeline: {train: {steps: 2}}}}\n"
        "  told: {defaults: {pipeline: {train: {steps: 3}}}, experiments: {A: {estimate: 1 min}}}\n"
    )
    found = {name: make_plan(load(path, profile=name), store).seconds_left for name in ("full", "small", "told")}
    assert found == {"full": 7200.0, "small": None, "told": 60.0}
