"""Rehearsals come before the first long run, once a configuration, and a failing one spares the long run."""

from __future__ import annotations

from typing import Any

from lab_of_tests import PROGRAM, Lab, experiment, stage

from ablab.contract.order import Numerics
from ablab.contract.result import Result
from ablab.launch.launcher import Machine
from ablab.launch.rehearsal import probe
from ablab.launch.rehearsals import SECONDS, plan_rehearsals, usual_seconds
from ablab.plan.configurations import Configurations, probe_folder, rehearsal_folder
from ablab.plan.graph import Plan
from ablab.store.files import read_lines
from ablab.store.layout import RunFolder


def long(tag: str, *needs: str, **values: Any) -> Any:
    """A training stage that is worth a rehearsal."""
    return stage("train", *needs, tag=tag, **{"steps": 100, **values})


def rehearsed(plan: Plan, lab: Lab) -> set[str]:
    found = plan_rehearsals(plan, list(plan.runs), lab.store, device="cpu")
    return {plan.runs[entry.key].experiment for entry in found.entries.values()}


def test_each_configuration_once_and_before_any_long_run(lab: Lab) -> None:
    lab.ask(
        *[experiment(f"E{n}", stage("prepare"), long(f"{n}", "prepare"), stage("evaluate", "train")) for n in range(2)],
        seeds=(1, 2),
        rehearse=True,
    )
    summary = lab.launch()
    assert summary.exit_code == 0
    assert len(lab.starts("rehearse")) == len(set(lab.starts("rehearse"))) == 2
    order = [(line["mode"], line["run"].split("-")[0]) for line in read_lines(lab.store.root / "starts.jsonl")]
    assert order[0] == ("run", "prepare")
    assert order[1:3] == [("rehearse", "train")] * 2
    assert len(summary.done) == 9


def test_a_done_rehearsal_is_not_repeated_and_its_weights_are_gone(lab: Lab) -> None:
    plan = lab.ask(experiment("A", long("a", fails={"1": "data"})), rehearse=True)
    lab.launch()
    run = next(iter(plan.runs.values()))
    folder = rehearsal_folder(lab.store, run, Configurations(plan).of(run.key))
    assert folder.done and not folder.checkpoints.exists()
    assert lab.launch().exit_code == 0
    assert len(lab.starts("rehearse")) == 1
    assert rehearsed(lab.plan(), lab) == set()


def test_what_will_not_run_is_not_rehearsed(lab: Lab) -> None:
    plan = lab.ask(experiment("A", long("a")), experiment("B", long("b")), seeds=(1, 2), rehearse=True)
    found = plan_rehearsals(plan, list(plan.runs), lab.store, device="cpu")

    def begins(*held: tuple[str, int]) -> list[str]:
        dead = {key for key, run in plan.runs.items() if (run.experiment, run.seed) in held}
        for entry in found.entries.values():
            entry.guessed = False
        startable = found.startable(lambda key: False, dead.__contains__)
        return [plan.runs[entry.key].experiment for entry in startable]

    assert begins() == ["A", "B"]
    # As long as one seed may still run, its configuration is worth a rehearsal.
    assert begins(("A", 1)) == ["A", "B"]
    assert begins(("A", 1), ("A", 2)) == ["B"]
    # Nobody waits for a rehearsal that will not come.
    for entry in found.entries.values():
        entry.status = "passed" if plan.runs[entry.key].experiment == "B" else "pending"
    dead = {key for key, run in plan.runs.items() if run.experiment == "A"}
    assert found.under_way(lambda key: False, lambda key: False)
    assert not found.under_way(lambda key: False, dead.__contains__)


def test_a_failing_rehearsal_stops_its_configuration_and_nothing_else(lab: Lab) -> None:
    lab.ask(
        experiment("bad", long("a", rehearsal="config"), stage("evaluate", "train")),
        experiment("good", long("b")),
        seeds=(1, 2),
        rehearse=True,
    )
    summary = lab.launch()
    bad = {lab.run("bad", seed=seed).name for seed in (1, 2)}
    assert set(summary.failed) == bad
    assert set(summary.blocked) == {lab.run("bad", "evaluate", seed).name for seed in (1, 2)}
    assert all(message.startswith("rehearsal failed: config") for message in summary.failed.values())
    assert not bad & set(lab.starts())
    assert lab.run("good").done and lab.run("good", seed=2).done
    assert [issue["kind"] for issue in lab.run("bad").read_issues()] == ["config"]
    assert lab.run("bad", seed=2).read_issues() == []
    states = [lab.run("bad", seed=seed).read_state() for seed in (1, 2)]
    assert [state.status for state in states if state] == ["failed", "failed"]


def test_memory_saved_in_rehearsal_is_saved_in_the_runs(lab: Lab) -> None:
    lab.ask(experiment("A", long("a", batch=8, memory=2)), seeds=(1, 2), rehearse=True)
    assert lab.launch().exit_code == 0
    for seed in (1, 2):
        order = lab.run("A", seed=seed).read_order()
        assert order is not None and (order.resources.micro_batch, order.attempt) == (2, 1)


def test_short_runs_are_their_own_rehearsal(lab: Lab) -> None:
    plan = lab.ask(
        *[experiment(name, long(name)) for name in ("unknown", "short", "long")],
        experiment("few", stage("train", tag="few", steps=20)),
    )
    by_name = {run.experiment: run for run in plan.runs.values()}
    for run in plan.runs.values():
        run.estimate = None
    by_name["short"].estimate = 10 * SECONDS - 1
    by_name["long"].estimate = 10 * SECONDS + 1
    assert rehearsed(plan, lab) == {"unknown", "long"}
    write_probe(plan, lab, by_name["unknown"], seconds=0.001)
    assert rehearsed(plan, lab) == {"long"}


def write_probe(plan: Plan, lab: Lab, run: Any, *, seconds: float) -> None:
    folder = probe_folder(lab.store, run, Configurations(plan).of(run.key)).create()
    folder.write_result(Result(key=run.key, facts={"step.seconds": seconds, "steps.planned": 100}))


def test_one_rehearsal_tells_that_the_others_are_not_worth_it(lab: Lab) -> None:
    """Nothing is known of how long runs take: the first one is rehearsed, and shows that they are short."""
    lab.ask(*[experiment(f"E{n}", long(f"{n}", seconds=1e-4)) for n in range(5)], rehearse=True)
    assert lab.launch(machine={"cores": 4}).exit_code == 0
    assert len(lab.starts("rehearse")) == 1
    lab.ask(
        *[experiment(f"F{n}", long(f"f{n}", seconds=1e-4, steps=10**6, fails={"1": "data"})) for n in range(3)],
        rehearse=True,
    )
    lab.launch(machine={"cores": 4})
    assert len(lab.starts("rehearse")) == 4


def test_what_rehearsals_took_says_what_is_short(lab: Lab) -> None:
    assert usual_seconds(lab.store) == SECONDS
    for number, seconds in enumerate((1.0, 2.0, 90.0)):
        folder = RunFolder(lab.store.root / "rehearsals" / f"train-{number}").create()
        folder.write_result(Result(key="x", time={"other": seconds}))
    assert usual_seconds(lab.store) == 2.0


def test_a_rehearsal_on_another_kind_of_device_proves_nothing(lab: Lab) -> None:
    plan = lab.ask(experiment("A", long("a")))
    run = next(iter(plan.runs.values()))
    folder = rehearsal_folder(lab.store, run, Configurations(plan).of(run.key)).create()
    folder.write_result(Result(key=run.key, numerics=Numerics(device="cpu")))
    assert rehearsed(plan, lab) == set()
    assert plan_rehearsals(plan, list(plan.runs), lab.store, device="cuda").entries


def test_a_done_run_is_the_best_rehearsal(lab: Lab) -> None:
    lab.ask(experiment("A", long("a")), seeds=(1,))
    lab.launch()
    lab.ask(experiment("A", long("a")), seeds=(1, 2))
    assert rehearsed(lab.plan(), lab) == set()


def test_the_configuration_is_what_a_seed_does_not_change(lab: Lab) -> None:
    plan = lab.ask(
        experiment("A", stage("prepare", tag="x"), long("same", "prepare")),
        experiment("B", stage("prepare", tag="y"), long("same", "prepare")),
        seeds=(1, 2),
    )
    configurations = Configurations(plan)
    digests = {
        (name, seed): configurations.of(plan.by_user[name, seed, "train"]) for name in ("A", "B") for seed in (1, 2)
    }
    assert digests["A", 1] == digests["A", 2] != digests["B", 1] == digests["B", 2]


def test_a_later_phase_is_rehearsed_as_soon_as_it_can_be(lab: Lab) -> None:
    """Phase two reads the weights that the rehearsal of phase one left, long before phase one is done."""
    first = stage("first", kind="train", tag="1", steps=100)
    second = stage("second", "first", kind="train", tag="2", steps=100, rehearsal="config")
    lab.ask(experiment("A", first, second), rehearse=True)
    summary = lab.launch()
    modes = [(line["mode"], line["run"].split("-")[0]) for line in read_lines(lab.store.root / "starts.jsonl")]
    assert modes == [("rehearse", "first"), ("rehearse", "second"), ("run", "first")]
    assert set(summary.failed) == {lab.run("A", "second").name}


def test_probes_run_once_a_configuration_after_the_data_they_read(lab: Lab) -> None:
    plan = lab.ask(
        *[experiment(f"E{n}", stage("prepare"), long(f"{n}", "prepare")) for n in range(2)],
        experiment("bad", stage("prepare"), long("bad", "prepare", rehearsal="data")),
        seeds=(1, 2),
    )
    assert lab.study is not None
    machine, said = Machine(cores=2, program=PROGRAM), list[str]()
    summary = probe(lab.study, plan, lab.store, say=said.append, machine=machine, devices="cpu", poll=0.05)
    assert (len(lab.starts("probe")), len(lab.starts())) == (3, 1)
    assert lab.run("E0", "prepare").done and not lab.run("E0").exists
    assert [message for message in summary.failed.values()] == ["probe failed: data: made to fail: data"]
    configurations = Configurations(plan)
    for name in ("E0", "E1"):
        run = plan.run_of(name, 1, "train")
        assert run is not None and probe_folder(lab.store, run, configurations.of(run.key)).done
    probe(lab.study, lab.plan(), lab.store, machine=machine, devices="cpu", poll=0.05, only=("E*",))
    assert len(lab.starts("probe")) == 3
