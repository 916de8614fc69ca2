"""Which runs there are, which are shared, and in which order they stand."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ablab.contract.failure import ConfigError
from ablab.plan.graph import Plan
from ablab.plan.planning import make_plan
from ablab.store.layout import Store
from ablab.study.loading import load


def stages_of(plan: Plan) -> list[tuple[str, int | None]]:
    return [(run.stage.name, run.seed) for run in plan.runs.values()]


def assert_inputs_first(plan: Plan) -> None:
    seen: set[str] = set()
    for key, run in plan.runs.items():
        assert run.key == key
        assert {given.key for given in run.inputs} <= seen
        seen.add(key)


def pyramid(toy: Any) -> Any:
    """Two arms as in a study of phases: F4 reads E2's second phase and merges two fine-tunes of it."""
    e2 = (
        toy.stage("prepare"),
        toy.stage("phase1", "prepare", kind="train", steps=10),
        toy.stage("phase2", "phase1 prepare", kind="train", steps=20),
        toy.stage("phase3", "phase2 prepare", kind="train", steps=30),
        toy.stage("evaluate", "phase3 prepare"),
    )
    f4 = (
        toy.stage("ko", "E2.phase2 E2.prepare", kind="train", steps=31),
        toy.stage("en", "E2.phase2 E2.prepare", kind="train", steps=32),
        toy.stage("merge", "ko en"),
        toy.stage("evaluate", "merge E2.prepare"),
    )
    return {"F4": f4, "E2": e2}


def test_three_seeds_prepare_once_and_train_thrice(toy: Any) -> None:
    plan = make_plan(toy.study({"A": toy.usual()}), None)
    assert stages_of(plan) == [
        ("prepare", None),
        ("train", 1),
        ("evaluate", 1),
        ("train", 2),
        ("evaluate", 2),
        ("train", 3),
        ("evaluate", 3),
    ]
    prepare = next(iter(plan.runs.values()))
    assert prepare.users == [("A", 1), ("A", 2), ("A", 3)]
    run = plan.run_of("A", 2, "evaluate")
    assert run is not None and [plan.runs[given.key].seed for given in run.inputs] == [None, 2]
    assert plan.run_of("A", 2, "nothing") is None and plan.run_of("A", 9, "train") is None
    assert len(plan.by_user) == 9 and dict(plan.by_user.items())["A", 3, "train"] == plan.by_user["A", 3, "train"]


def test_equal_arms_are_one_run_with_both_as_users(toy: Any) -> None:
    arms = {"A": toy.usual(), "B": toy.usual(log_every=1), "C": toy.usual(batch=2)}
    plan = make_plan(toy.study(arms, seeds=(7,)), None)
    shared, own = plan.run_of("A", 7, "train"), plan.run_of("C", 7, "train")
    assert shared is plan.run_of("B", 7, "train") and shared is not None and own is not shared
    assert shared.users == [("A", 7), ("B", 7)]
    assert len(plan.runs) == 5


def test_all_arms_at_one_seed_come_before_the_next_seed(toy: Any) -> None:
    arms = {name: toy.usual(steps=n) for n, name in enumerate("ABC", 1)}
    options = {"C": {"priority": 1.0}, "B": {"seeds": (3, 9)}}
    plan = make_plan(toy.study(arms, seeds=(2, 1, 3), options=options), None)
    order = [(run.experiment, run.seed) for run in plan.runs.values() if run.stage.name == "train"]
    assert order == [("C", 2), ("A", 2), ("C", 1), ("A", 1), ("C", 3), ("A", 3), ("B", 3), ("B", 9)]
    assert_inputs_first(plan)


def test_arms_across_experiments_share_phases_and_pair_seeds(toy: Any) -> None:
    plan = make_plan(toy.study(pyramid(toy), seeds=(1, 2)), None)
    assert_inputs_first(plan)
    for seed in (1, 2):
        ko, phase2 = plan.run_of("F4", seed, "ko"), plan.run_of("E2", seed, "phase2")
        assert ko is not None and phase2 is not None
        assert ko.inputs[0].key == phase2.key and phase2.seed == seed
        assert set(phase2.users) == {("F4", seed), ("E2", seed)}
    # prepare once; per seed phases 1-3 and evaluate of E2, then ko, en, merge and evaluate of F4.
    assert len(plan.runs) == 1 + 2 * 8


def test_only_keeps_what_is_needed_of_others(toy: Any) -> None:
    study = toy.study(pyramid(toy), seeds=(1, 2))
    plan = make_plan(study, None, only=["F*"], seeds=[2])
    assert [name for name, _ in stages_of(plan)] == ["prepare", "phase1", "phase2", "ko", "en", "merge", "evaluate"]
    assert {user for run in plan.runs.values() for user in run.users} == {("F4", 2)}
    assert {place[:2] for place in plan.by_user} == {("F4", 2)}
    whole = make_plan(study, None)
    assert plan.runs.keys() <= whole.runs.keys()


def test_names_and_seeds_in_vain_are_errors(toy: Any) -> None:
    study = toy.study({"GPT-01": toy.usual(), "GPT-02": toy.usual()}, options={"GPT-02": {"seeds": (5,)}})
    with pytest.raises(ConfigError, match="did you mean GPT-01"):
        make_plan(study, None, only=["GTP-01"])
    with pytest.raises(ConfigError, match="seeds 1, 2, 3, 5"):
        make_plan(study, None, seeds=[4])
    assert {run.seed for run in make_plan(study, None, seeds=[5]).runs.values()} == {None, 5}


def test_a_pipeline_may_stand_in_any_order(toy: Any) -> None:
    prepare, train, evaluate = toy.usual()
    straight = make_plan(toy.study({"A": (prepare, train, evaluate)}), None)
    turned = make_plan(toy.study({"A": (evaluate, train, prepare)}), None)
    assert_inputs_first(turned)
    assert set(turned.runs) == set(straight.runs)
    assert dict(turned.by_user) == dict(straight.by_user)


def test_circles_are_named(toy: Any) -> None:
    circle = (toy.stage("a", "b", kind="train"), toy.stage("b", "a", kind="train"))
    with pytest.raises(ConfigError, match=r"circle: (a -> b -> a|b -> a -> b)"):
        make_plan(toy.study({"A": circle}), None)
    arms = {"A": (toy.stage("x", "B.y", kind="train"),), "B": (toy.stage("y", "A.x", kind="train"),)}
    with pytest.raises(ConfigError, match=r"circle: .*B\.y -> A\.x"):
        make_plan(toy.study(arms), None)


def test_experiments_may_read_each_other_without_a_circle(toy: Any) -> None:
    arms = {
        "A": (*toy.usual()[:2], toy.stage("evaluate", "B.train prepare")),
        "B": (toy.stage("train", "A.prepare", batch=3), toy.stage("evaluate", "A.train A.prepare", split="val")),
    }
    plan = make_plan(toy.study(arms, seeds=(1,)), None)
    assert_inputs_first(plan)
    assert len(plan.runs) == 5


def test_a_need_of_ones_own_name_is_ones_own_stage(toy: Any) -> None:
    needs = toy.stage("evaluate", "A.train A.prepare")
    arms = {"A": (*toy.usual()[:2], needs), "B": (*toy.usual(steps=5)[:2], needs)}
    plan = make_plan(toy.study(arms, seeds=(1,)), None)
    assert plan.by_user["A", 1, "evaluate"] == plan.by_user["B", 1, "evaluate"]


def test_needs_that_lead_nowhere_are_errors(toy: Any) -> None:
    with pytest.raises(ConfigError, match=r"no stage.*prepare, train"):
        make_plan(toy.study({"A": (*toy.usual()[:2], toy.stage("evaluate", "tarin"))}), None)
    with pytest.raises(ConfigError, match="no experiment 'Z'"):
        make_plan(toy.study({"A": (toy.stage("evaluate", "Z.train"),)}), None)


def test_planned_arms_are_shown_and_hold_nobody_back(toy: Any) -> None:
    arms = {"A": toy.usual(), "B": toy.usual(steps=7), "C": (toy.stage("evaluate", "B.train B.prepare", split="val"),)}
    options = {"A": {"planned": True}, "B": {"planned": True}}
    plan = make_plan(toy.study(arms, seeds=(1,), options=options), None)
    status = {(run.experiment, run.stage.name): run.status for run in plan.runs.values()}
    assert status["A", "train"] == "planned" and status["B", "evaluate"] == "planned"
    # What C reads of a planned arm is C's own wish.
    assert status["B", "train"] == "pending" and status["A", "prepare"] == "pending"
    assert status["C", "evaluate"] == "pending"


def test_a_shared_run_has_the_highest_priority_of_its_users(toy: Any) -> None:
    arms = {"A": toy.usual(), "B": toy.usual()}
    plan = make_plan(toy.study(arms, seeds=(1,), options={"B": {"priority": 2.0}}), None)
    assert {run.priority for run in plan.runs.values()} == {2.0}


def test_what_cannot_be_resolved_never_starts_and_neither_does_what_reads_it(toy: Any, tmp_path: Path) -> None:
    arms = {"A": toy.usual(data={"file": "missing.txt"}), "B": toy.usual()}
    study = toy.study(arms, seeds=(1,), path=str(tmp_path / "s.yaml"))
    plan = make_plan(study, None)
    for name in ("prepare", "train", "evaluate"):
        run, other = plan.run_of("A", 1, name), plan.run_of("B", 1, name)
        assert run is not None and run.status == "unresolved" and run.unresolved == ("missing.txt@unresolved",)
        assert other is not None and other.status == "pending" and other.unresolved == ()
    (tmp_path / "missing.txt").write_text("here")
    assert {run.status for run in make_plan(study, None).runs.values()} == {"pending"}


def test_a_hub_name_resolves_by_the_lock_file(tmp_path: Path) -> None:
    path = tmp_path / "hub.yaml"
    path.write_text(
        "name: hub\ntask: language-modeling\nseeds: [1]\n"
        "defaults: {data: {source: tinystories}, pipeline: {train: {steps: 5}}}\nexperiments: {A: {}}\n"
    )
    plan = make_plan(load(path), None)
    assert {run.status for run in plan.runs.values()} == {"unresolved"}
    revision = "a" * 40
    content = f'{{"format": 1, "revisions": {{"dataset:roneneldan/TinyStories": "{revision}"}}}}'
    (tmp_path / "hub.lock.json").write_text(content)
    resolved = make_plan(load(path), None)
    assert {run.status for run in resolved.runs.values()} == {"pending"}
    assert not set(plan.runs) & set(resolved.runs)


TASK_FILE = """
from ablab.contract.base import Strict, setting
from ablab.contract.task import StageSpec, TaskSpec
from ablab.contract.training import Train

class Model(Strict):
    width: int = setting(8, "Width.", ge=1)

class Plain(Strict):
    pass

class Merge(Strict):
    drop: float = setting(0.0, "Share dropped.")

def stage(kind, parameters, *inputs, **more):
    return StageSpec(kind=kind, parameters=parameters, run="mine:run", inputs=inputs, **more)

STAGES = (
    stage("prepare", Plain, seeded=False),
    stage("train", Train, "prepare", "train", "merge", sections=("model",), makes_checkpoints=True,
          steps=lambda _, p: p.steps),
    stage("merge", Merge, "train", seeded=False),
    stage("evaluate", Plain, "train", "merge", "prepare", sections=("model",), seeded=False),
)
SPEC = TaskSpec(name="mine", title="Mine", sections={"model": Model}, stages={s.kind: s for s in STAGES}, pipeline={})
"""

STUDY = """
name: phases
task: task.py:SPEC
seeds: [1, 2, 3]
experiments:
  E2:
    pipeline:
      prepare: {}
      phase1: {kind: train, steps: 10, needs: prepare}
      phase2: {kind: train, steps: 20, needs: [prepare, phase1]}
      phase3: {kind: train, steps: 50, needs: [prepare, phase2]}
      evaluate: {needs: [prepare, phase3]}
  E1: {like: E2, pipeline: {phase2: {optimizer: {learning_rate: 1e-3}}}}
  W: {like: E2, model: {width: 9}}
  F4:
    pipeline:
      ko: {kind: train, steps: 50, optimizer: {learning_rate: 1e-5}, needs: [E2.prepare, E2.phase2]}
      en: {kind: train, steps: 50, needs: [E2.prepare, E2.phase2]}
      merge: {needs: [ko, en], drop: 0.9}
      evaluate: {needs: [E2.prepare, merge]}
"""


def phases(folder: Path) -> Path:
    (folder / "task.py").write_text(TASK_FILE)
    (folder / "phases.yaml").write_text(STUDY)
    return folder / "phases.yaml"


def test_real_yaml_shares_phases(tmp_path: Path) -> None:
    path = phases(tmp_path)
    plan = make_plan(load(path), None)
    assert_inputs_first(plan)

    def key(experiment: str, stage: str, seed: int = 2) -> str:
        return plan.by_user[experiment, seed, stage]

    # E1 shares phase 1 and departs from phase 2 on; another width departs at once; F4 reads E2's phases.
    assert key("E1", "phase1") == key("E2", "phase1") != key("W", "phase1")
    assert len({key(name, "phase2") for name in ("E1", "E2", "W")}) == 3
    # F4's English fine-tune reads what E2's phase 3 reads, with the same settings: it is E2's phase 3.
    assert key("F4", "en") == key("E2", "phase3") != key("F4", "ko")
    given = {given.reference: given.key for given in plan.runs[key("F4", "ko")].inputs}
    assert given == {"E2.prepare": key("E2", "prepare"), "E2.phase2": key("E2", "phase2")}
    assert key("E2", "prepare", 1) == key("W", "prepare", 3)
    # prepare; a seed: E2 4, E1 3 more, W 4, F4 ko, merge, evaluate.
    assert len(plan.runs) == 1 + 3 * (4 + 3 + 4 + 3)
    again = make_plan(load(path), None)
    assert list(again.runs) == list(plan.runs)
    (tmp_path / "task.py").write_text(TASK_FILE + "\n# another version of its code\n")
    assert not set(make_plan(load(path), None).runs) & set(plan.runs)
    (tmp_path / "task.py").write_text(TASK_FILE)
    alone = make_plan(load(path), None, only=["F4"], seeds=[3])
    assert len(alone.runs) == 1 + 2 + 4 and alone.runs.keys() <= plan.runs.keys()


@settings(max_examples=40, deadline=None)
@given(
    steps=st.lists(st.integers(1, 3), min_size=1, max_size=4),
    seeds=st.lists(st.integers(0, 3), min_size=1, max_size=3, unique=True),
    borrowed=st.booleans(),
)
def test_every_wish_is_met_by_a_run_with_its_inputs(
    toy_study: Any, steps: list[int], seeds: list[int], borrowed: bool
) -> None:
    toy = toy_study
    arms = {f"E{n}": toy.usual(steps=count) for n, count in enumerate(steps)}
    if borrowed:
        arms["X"] = (toy.stage("evaluate", "E0.train@best E0.prepare"),)
    plan = make_plan(toy.study(arms, seeds=tuple(seeds)), None)
    assert_inputs_first(plan)
    for name, stages in arms.items():
        for seed in seeds:
            for stage in stages:
                run = plan.runs[plan.by_user[name, seed, stage.name]]
                assert (name, seed) in run.users and run.seed in (None, seed)
                assert len(run.inputs) == len(stage.needs)
                assert all((name, seed) in plan.runs[given.key].users for given in run.inputs)
    trains = sum(1 for run in plan.runs.values() if run.stage.name == "train")
    # Defaults of the validation schedule are left out of the key, so consuming the best changes nothing here.
    assert trains == len(set(steps)) * len(seeds)


@pytest.fixture(scope="module")
def toy_study(request: pytest.FixtureRequest) -> Any:
    return request.getfixturevalue("toy_module")


def test_the_collector_is_as_it_was(toy: Any, store: Store) -> None:
    for enabled in (True, False):
        (gc.enable if enabled else gc.disable)()
        try:
            make_plan(toy.study({"A": toy.usual()}), store)
            assert gc.isenabled() is enabled
        finally:
            gc.enable()


def test_planning_writes_nothing(toy: Any, store: Store) -> None:
    make_plan(toy.study({"A": toy.usual()}), store)
    assert not store.root.exists()
