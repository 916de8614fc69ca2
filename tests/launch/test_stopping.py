"""Stopping: Ctrl-C, `ablab stop`, --until, hang-up; and going on in the background."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from lab_of_tests import Lab, experiment, stage

from ablab.contract.failure import AblabError
from ablab.launch.living import living_launchers, living_workers, stop
from ablab.launch.processes import Watch

Eventually = Callable[..., Any]
#: Takes two steps and waits.
LONG: dict[str, Any] = {"gate": True}


def after(condition: Callable[[], Any], action: Callable[[], Any]) -> threading.Thread:
    """Do something from another thread once a condition holds."""

    def work() -> None:
        deadline = time.monotonic() + 60
        while not condition() and time.monotonic() < deadline:
            time.sleep(0.01)
        action()

    thread = threading.Thread(target=work)
    thread.start()
    return thread


def stepping(lab: Lab, *names: str) -> bool:
    """Whether workers of these experiments have taken a step."""
    states = [lab.run(name).read_state() for name in names]
    return all(state is not None and state.step > 1 for state in states)


def interrupt() -> None:
    os.kill(os.getpid(), signal.SIGINT)


def test_ctrl_c_lets_workers_write_a_checkpoint_and_the_next_launch_goes_on(lab: Lab) -> None:
    lab.ask(experiment("A", stage("train", tag="a", **LONG)), experiment("B", stage("train", tag="b")))
    before = signal.getsignal(signal.SIGINT)
    thread = after(lambda: stepping(lab, "A"), interrupt)
    summary = lab.launch(slots=1)
    thread.join()
    assert signal.getsignal(signal.SIGINT) is before
    assert summary.stopped == (lab.run("A").name,)
    assert summary.left == {lab.run("B").name: "SIGINT"}
    assert summary.exit_code == 3
    state, end = lab.run("A").read_state(), lab.run("A").attempt(1).read_end()
    assert state is not None and state.status == "stopped"
    assert end is not None and end["kind"] == "stopped"
    assert state.step == 2
    lab.open_gate()
    assert lab.launch().exit_code == 0
    assert lab.run("A").attempts() == [1, 2]
    assert lab.run("A").read_issues() == []


def test_a_second_ctrl_c_kills_what_does_not_listen(lab: Lab) -> None:
    lab.ask(experiment("A", stage("train", deaf=True, **LONG)))

    def twice() -> None:
        interrupt()
        time.sleep(0.3)
        alive.append(Watch(lab.pids()[0]).ended)
        interrupt()

    alive: list[bool] = []
    thread = after(lambda: stepping(lab, "A"), twice)
    summary = lab.launch()
    thread.join()
    assert alive == [False]
    assert summary.stopped == (lab.run("A").name,)
    assert Watch(lab.pids()[0]).ended


def test_workers_that_take_too_long_are_killed(lab: Lab) -> None:
    lab.ask(experiment("A", stage("train", deaf=True, **LONG)))
    thread = after(lambda: stepping(lab, "A"), interrupt)
    summary = lab.launch(grace=0.3)
    thread.join()
    assert summary.stopped == (lab.run("A").name,)


def test_a_worker_stopped_from_outside_stays_stopped(lab: Lab) -> None:
    lab.ask(experiment("A", stage("train", tag="a", **LONG)), experiment("B", stage("train", tag="b")))
    thread = after(lambda: stepping(lab, "A"), lambda: os.kill(lab.pids()[0], signal.SIGTERM))
    summary = lab.launch(slots=1)
    thread.join()
    assert summary.stopped == (lab.run("A").name,)
    assert summary.done == (lab.run("B").name,)


def test_stop_reaches_launchers_and_their_workers(lab: Lab, elsewhere: Any, eventually: Eventually) -> None:
    arms = "lab.ask(*[experiment(f'E{n}', stage('train', tag=f'{n}', gate=True)) for n in range(2)])"
    process = elsewhere(f"{arms}; sys.exit(lab.launch().exit_code)")
    lab.ask(*[experiment(f"E{n}", stage("train", tag=f"{n}", **LONG)) for n in range(2)])
    eventually(lambda: stepping(lab, "E0", "E1"))
    assert len(list(living_launchers(lab.store, "fake"))) == 1
    assert list(living_launchers(lab.store, "another study")) == []
    assert {name for name, _ in living_workers(lab.store)} == {lab.run("E0").name, lab.run("E1").name}
    assert stop(lab.store, "another study") == []
    names = stop(lab.store, "fake")
    assert len(names) == 3
    assert process.wait(10) == 3
    assert list(living_launchers(lab.store)) == list(living_workers(lab.store)) == []
    states = [lab.run(name).read_state() for name in ("E0", "E1")]
    assert [state.status for state in states if state] == ["stopped", "stopped"]


def test_stop_says_what_would_not_stop(lab: Lab, elsewhere: Any, eventually: Eventually) -> None:
    elsewhere("lab.ask(experiment('A', stage('train', deaf=True, gate=True))); lab.launch()")
    lab.ask(experiment("A", stage("train", deaf=True, **LONG)))
    eventually(lambda: stepping(lab, "A"))
    with pytest.raises(AblabError, match="still running"):
        stop(lab.store, seconds=0.3)


def test_a_stop_file_works_across_machines(lab: Lab) -> None:
    lab.ask(experiment("A", stage("train", **LONG)))
    thread = after(lambda: stepping(lab, "A"), lambda: (lab.store.launches()[-1] / "stop").touch())
    assert lab.launch().stopped == (lab.run("A").name,)
    thread.join()


def test_until_starts_nothing_that_would_not_finish(lab: Lab) -> None:
    plan = lab.ask(
        experiment("long", stage("train", tag="a")),
        experiment("short", stage("train", tag="b")),
        experiment("unknown", stage("train", tag="c")),
    )
    for name, estimate in {"long": 3600.0, "short": 0.1, "unknown": None}.items():
        plan.runs[lab.run(name).key].estimate = estimate
    summary = lab.launch(plan, until=time.time() + 60)
    assert set(summary.done) == {lab.run("short").name, lab.run("unknown").name}
    assert "would not finish by" in summary.left[lab.run("long").name]
    order = lab.run("short").read_order()
    assert order is not None and order.deadline is not None and order.deadline > time.time()


def test_until_counts_what_is_left_of_a_started_run(lab: Lab) -> None:
    plan = lab.ask(experiment("A", stage("train", steps=10, fails={"1@9": "data"})))
    lab.launch()
    plan.runs[lab.run("A").key].estimate = 100.0
    assert lab.launch(plan, until=time.time() + 30).done == (lab.run("A").name,)


def test_when_the_time_comes_runs_checkpoint_and_stop(lab: Lab) -> None:
    lab.ask(experiment("A", stage("train", tag="a", **LONG)), experiment("B", stage("train", tag="b")))
    summary = lab.launch(slots=1, until=time.time() + 2.0)
    assert summary.stopped == (lab.run("A").name,)
    assert list(summary.left) == [lab.run("B").name]
    state = lab.run("A").read_state()
    assert state is not None and state.status == "stopped"


def test_a_detached_launch_survives_the_death_of_its_terminal(lab: Lab, elsewhere: Any, eventually: Eventually) -> None:
    arm = "experiment('A', stage('train', gate=True))"
    process = elsewhere(
        f"lab.ask({arm})\n"
        "summary = lab.launch(detach=True)\n"
        "print(summary.pid, summary.log, flush=True)\n"
        "import os, signal; os.killpg(0, signal.SIGHUP)\n"
    )
    assert process.stdout is not None
    pid, log = process.stdout.readline().split()
    process.wait(20)
    lab.ask(experiment("A", stage("train", **LONG)))
    watch = Watch(int(pid))
    eventually(lambda: stepping(lab, "A"))
    assert not watch.ended
    lab.open_gate()
    eventually(lambda: lab.run("A").done)
    eventually(lambda: watch.ended)
    assert "A seed 1 train: done" in Path(log).read_text()
    assert os.getsid(0) != int(pid)


def test_a_detached_launch_reports_what_is_wrong_before_it_leaves(lab: Lab) -> None:
    from ablab.contract.failure import ConfigError

    lab.ask(experiment("A", stage("train")))
    with pytest.raises(ConfigError, match="no such GPU"):
        lab.launch(detach=True, devices=(7,))
    assert lab.store.launches() == []
