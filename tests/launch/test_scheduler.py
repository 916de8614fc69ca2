"""A launch does every run once, in plan order, on the places there are."""

from __future__ import annotations

import json
from pathlib import Path

from lab_of_tests import FAKE, Lab, experiment, select, stage

from ablab.store.files import read_lines


def arms(count: int, **parameters: object) -> list[object]:
    return [
        experiment(f"E{n}", stage("prepare"), stage("train", "prepare", tag=f"{n}", **parameters))  # type: ignore[arg-type]
        for n in range(count)
    ]


def test_all_arms_at_one_seed_come_before_the_next_seed(lab: Lab) -> None:
    plan = lab.ask(*arms(3), seeds=(1, 2))  # type: ignore[arg-type]
    summary = lab.launch(slots=1)
    assert summary.exit_code == 0 and len(summary.done) == 7
    seeds = [plan.runs[name.partition("-")[2]].seed for name in lab.starts()]
    assert seeds == [None, 1, 1, 1, 2, 2, 2]
    assert lab.starts() == lab.ends()


def test_priorities_come_first_within_a_seed(lab: Lab) -> None:
    lab.ask(
        experiment("late", stage("train", tag="a")),
        experiment("early", stage("train", tag="b"), priority=5.0),
        seeds=(1, 2),
    )
    lab.launch(slots=1)
    by_name = {lab.run(e, seed=s).name: (e, s) for e in ("late", "early") for s in (1, 2)}
    assert [by_name[name] for name in lab.starts()] == [("early", 1), ("late", 1), ("early", 2), ("late", 2)]


def test_equal_work_runs_once_and_a_finished_launch_does_nothing(lab: Lab) -> None:
    lab.ask(
        experiment("A", stage("prepare"), stage("train", "prepare", tag="same")),
        experiment("B", stage("prepare"), stage("train", "prepare", tag="same"), stage("evaluate", "train")),
    )
    assert len(lab.launch().done) == 3
    again = lab.launch()
    assert (again.done, len(again.reused), again.exit_code) == ((), 3, 0)
    assert len(lab.starts()) == 3
    assert lab.value("A") == lab.value("B")


def test_runs_that_fit_go_side_by_side_and_no_more(lab: Lab) -> None:
    lab.ask(*arms(5, steps=4, seconds=0.02))  # type: ignore[arg-type]
    lab.launch(machine={"cores": 3})
    changes = [(line["t"], +1) for line in read_lines(lab.store.root / "starts.jsonl")]
    changes += [(line["t"], -1) for line in read_lines(lab.store.root / "ends.jsonl")]
    running, most = 0, 0
    for _, change in sorted(changes):
        running += change
        most = max(most, running)
    # A worker says that it ended a moment before its process has.
    assert 2 <= most <= 3
    orders = [lab.run(f"E{n}").read_order() for n in range(5)]
    assert {order.resources.threads for order in orders if order} == {1}


def test_a_failure_blocks_what_needs_it_and_nothing_else(lab: Lab) -> None:
    lab.ask(
        experiment("bad", stage("train", tag="x", fails={"1": "data"}), stage("evaluate", "train")),
        experiment("good", stage("train", tag="y"), stage("evaluate", "train")),
    )
    summary = lab.launch()
    assert set(summary.failed) == {lab.run("bad").name}
    assert set(summary.blocked) == {lab.run("bad", "evaluate").name}
    assert lab.run("good", "evaluate").done and not lab.run("bad", "evaluate").exists
    assert summary.exit_code == 1
    state = lab.run("bad").read_state()
    assert state is not None and (state.status, state.kind) == ("failed", "data")


def test_only_and_seeds_narrow_a_launch(lab: Lab) -> None:
    lab.ask(*arms(3), seeds=(1, 2))  # type: ignore[arg-type]
    lab.launch(only=("E[01]",), seeds=(2,))
    assert [e for e in range(3) for s in (1, 2) if lab.run(f"E{e}", seed=s).done] == [0, 1]
    assert lab.run("E0", "prepare", 2).done


def test_planned_experiments_are_never_started(lab: Lab) -> None:
    lab.ask(experiment("now", stage("train", tag="a")), experiment("later", stage("train", tag="b"), planned=True))
    summary = lab.launch()
    assert (summary.exit_code, summary.done) == (0, (lab.run("now").name,))
    assert not lab.run("later").exists


def test_runs_are_reached_by_name(lab: Lab) -> None:
    lab.ask(*arms(2), seeds=(1, 2))  # type: ignore[arg-type]
    lab.launch()
    link = lab.store.study_folder("fake", "full") / "by-name" / "E1" / "seed-2" / "train"
    assert link.resolve() == lab.run("E1", seed=2).path
    shared = lab.store.study_folder("fake", "full") / "by-name" / "E0" / "seed-1" / "prepare"
    assert shared.resolve() == lab.run("E1", "prepare").path


def test_workers_run_from_frozen_source_with_quiet_threads(lab: Lab) -> None:
    lab.ask(experiment("A", stage("train")))
    summary = lab.launch(track=("tensorboard",))
    order = lab.run("A").read_order()
    variables = json.loads(lab.run("A").attempt(1).environment.read_text())["variables"]
    launch = json.loads((lab.store.launch_folder(summary.launch) / "launch.json").read_text())
    assert order is not None and order.source == launch["source"]["path"] and order.track == ("tensorboard",)
    assert variables["PYTHONPATH"].split(":")[0] == order.source
    assert (Path(order.source or "") / "ablab" / "launch" / "scheduler.py").is_file()
    assert variables["OMP_WAIT_POLICY"].lower() == "passive"


def test_an_edit_during_a_run_changes_nothing_that_runs(lab: Lab, tmp_path: Path) -> None:
    """The worker of a later run imports what was frozen at launch, though the file has changed since."""
    code = tmp_path / "code"
    code.mkdir()
    module = code / "answer.py"
    module.write_text("ANSWER = 'before'\n")
    worker = tmp_path / "worker.py"
    worker.write_text(
        "import os, sys; from pathlib import Path; from answer import ANSWER\n"
        f"Path({str(module)!r}).write_text(\"ANSWER = 'after'\\n\")\n"
        "print('the answer is', ANSWER, flush=True)\n"
        f"os.execv(sys.executable, [sys.executable, {str(FAKE)!r}, sys.argv[1]])\n"
    )
    from ablab.launch import launcher
    from ablab.launch.executors.base import Program

    def freeze_with_code(*args: object, **kwargs: object) -> object:
        import dataclasses
        import shutil

        frozen = original(*args, **kwargs)  # type: ignore[arg-type]
        source = tmp_path / "frozen"
        shutil.copytree(frozen.source / "ablab", source / "ablab")
        shutil.copy(module, source / "answer.py")
        return dataclasses.replace(frozen, source=source)

    original, launcher.freeze = launcher.freeze, freeze_with_code  # type: ignore[assignment]
    try:
        lab.ask(experiment("A", stage("train", tag="a")), experiment("B", stage("train", tag="b")))
        program = Program(worker=(str(worker),), template=None)
        assert len(lab.launch(slots=1, machine={"program": program}).done) == 2
    finally:
        launcher.freeze = original
    assert module.read_text() == "ANSWER = 'after'\n"
    for name in ("A", "B"):
        assert "the answer is before" in lab.run(name).attempt(1).log.read_text()


def test_a_launch_says_what_happens(lab: Lab) -> None:
    lab.ask(experiment("A", stage("train", fails={"1": "crash"})))
    lab.launch()
    kinds = lab.kinds()
    assert kinds[0] == kinds[-1] == "launch"
    assert kinds[1:-1] == ["started", "failure", "started", "finished"]
    assert "A seed 1 train: crash: made to fail: crash; once more" in lab.texts()


def test_a_sweep_goes_on_with_what_was_chosen(lab: Lab) -> None:
    values = (2, 3, 5)
    lab.ask(
        experiment("A", select("choose", steps=values), stage("train", "choose"), stage("evaluate", "train")),
        seeds=(1, 2),
    )
    summary = lab.launch()
    assert summary.exit_code == 0, lab.texts()
    plan = lab.plan()
    assert {run.status for run in plan.runs.values()} == {"done"}
    chosen = lab.run("A", "choose").read_result()
    assert chosen is not None
    steps = chosen.facts["chosen"]["pipeline.train.steps"]
    orders = [lab.run("A", seed=seed).read_order() for seed in (1, 2)]
    assert [order.parameters["steps"] for order in orders if order] == [steps, steps]
    # Three trials at the first seed, one of which is the run itself, the choice, the second seed, two evaluations.
    assert len(lab.starts()) == len(set(lab.starts())) == 7
