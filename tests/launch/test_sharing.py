"""Several launches, and launches that follow one that was killed: nothing is lost, nothing is done twice."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from lab_of_tests import Lab, pipelines

from ablab.launch.processes import Watch
from ablab.store.files import read_lines

Eventually = Callable[..., Any]


def stepping(lab: Lab) -> bool:
    state = lab.run("E0").read_state()
    return state is not None and state.step >= 2


def after(eventually: Eventually, condition: Callable[[], Any], action: Callable[[], Any]) -> threading.Thread:
    """Do something from another thread once a condition holds."""
    thread = threading.Thread(target=lambda: (eventually(condition), action()))
    thread.start()
    return thread


def test_two_launches_share_the_work(lab: Lab, elsewhere: Any, eventually: Eventually) -> None:
    code = "lab.ask(*pipelines(gate=True)); s = lab.launch(); print(len(s.done), s.exit_code)"
    processes = [elsewhere(code), elsewhere(code)]
    lab.ask(*pipelines(gate=True))
    eventually(lambda: lab.heard("launch") == 2)
    lab.open_gate()
    told = [process.communicate(timeout=60)[0] for process in processes]
    assert [text.split()[-2:] for text in told] == [["13", "0"]] * 2, told
    assert len(lab.ends()) == len(set(lab.ends())) == 13
    assert len(lab.starts()) == 13
    assert all(value is not None for value in lab.values().values())


def test_equal_work_is_one_run_whatever_its_stage_is_called(lab: Lab, elsewhere: Any, eventually: Eventually) -> None:
    """Both plans are made before either has begun, so that each knows the work by its own name."""
    code = (
        "from lab_of_tests import experiment, stage\n"
        "lab.ask(experiment('A', stage('prepare'), stage({0!r}, 'prepare', kind='train', steps=9, gate=True)))\n"
        "s = lab.launch(); print(len(s.done), s.exit_code)"
    )
    processes = [elsewhere(code.format(name)) for name in ("train", "phase1")]
    eventually(lambda: lab.heard("launch") == 2)
    lab.open_gate()
    told = [process.communicate(timeout=60)[0] for process in processes]
    assert [text.split()[-2:] for text in told] == [["2", "0"]] * 2, told
    assert len(lab.starts()) == len(lab.ends()) == 2
    assert len(list(lab.store.runs())) == 2


def test_two_launches_together_keep_to_the_cores(lab: Lab, elsewhere: Any) -> None:
    code = "lab.ask(*pipelines(4, seconds=.05)); lab.launch(machine={'cores': 2})"
    for process in [elsewhere(code), elsewhere(code)]:
        process.communicate(timeout=60)
    changes = [(line["t"], +1) for line in read_lines(lab.store.root / "starts.jsonl")]
    changes += [(line["t"], -1) for line in read_lines(lab.store.root / "ends.jsonl")]
    running = most = 0
    for _, change in sorted(changes):
        running += change
        most = max(most, running)
    # Two launches that start at the very same moment see each other at their next look.
    assert most <= 3


def test_a_worker_outlives_its_launcher_and_is_adopted(lab: Lab, elsewhere: Any, eventually: Eventually) -> None:
    process = elsewhere("lab.ask(*pipelines(1, gate=True)); lab.launch()")
    lab.ask(*pipelines(1, gate=True))
    eventually(lambda: stepping(lab))
    process.send_signal(signal.SIGKILL)
    process.wait()
    pid = lab.pids()[-1]
    thread = after(eventually, lambda: lab.heard("adopted"), lab.open_gate)
    summary = lab.launch()
    thread.join()
    assert summary.exit_code == 0
    assert "adopted" in lab.kinds()
    assert lab.run("E0").attempts() == [1]
    assert Watch(pid).ended
    assert lab.starts().count(lab.run("E0").name) == 1


def test_ctrl_c_reaches_adopted_workers(lab: Lab, elsewhere: Any, eventually: Eventually) -> None:
    process = elsewhere("lab.ask(*pipelines(1, gate=True)); lab.launch()")
    lab.ask(*pipelines(1, gate=True))
    eventually(lambda: stepping(lab))
    process.send_signal(signal.SIGKILL)
    process.wait()
    thread = after(eventually, lambda: lab.heard("adopted"), lambda: os.kill(os.getpid(), signal.SIGINT))
    summary = lab.launch()
    thread.join()
    assert summary.stopped == (lab.run("E0").name,)
    end = lab.run("E0").attempt(1).read_end()
    assert end is not None and end["kind"] == "stopped"


def test_a_failure_of_an_adopted_worker_follows_its_policy(lab: Lab, elsewhere: Any, eventually: Eventually) -> None:
    process = elsewhere("lab.ask(*pipelines(1, gate=True, fails={'1@4': 'crash'})); lab.launch()")
    lab.ask(*pipelines(1, gate=True, fails={"1@4": "crash"}))
    eventually(lambda: stepping(lab))
    process.send_signal(signal.SIGKILL)
    process.wait()
    thread = after(eventually, lambda: lab.heard("adopted"), lab.open_gate)
    assert lab.launch().exit_code == 0
    thread.join()
    assert [i["kind"] for i in lab.run("E0").read_issues()] == ["crash"]
    assert lab.run("E0").attempts() == [1, 2]


def test_work_that_another_launch_gives_up_is_taken_over(lab: Lab, elsewhere: Any, eventually: Eventually) -> None:
    """The first launch is stopped by its user while the second one watches: the second goes on."""
    process = elsewhere("lab.ask(*pipelines(1, gate=True)); lab.launch()")
    lab.ask(*pipelines(1, gate=True))
    eventually(lambda: stepping(lab))
    second = elsewhere("lab.ask(*pipelines(1, gate=True)); sys.exit(lab.launch().exit_code)")
    eventually(lambda: lab.heard("watched"))
    process.send_signal(signal.SIGINT)
    process.wait()
    lab.open_gate()
    assert second.wait() == 0
    assert lab.run("E0").attempts() == [1, 2]


def test_a_failure_in_another_launch_is_not_repeated_here(lab: Lab, elsewhere: Any, eventually: Eventually) -> None:
    values = "gate=True, fails={'1@4': 'data', '2': 'data'}"
    elsewhere(f"lab.ask(*pipelines(1, {values})); lab.launch()")
    lab.ask(*pipelines(1, gate=True, fails={"1@4": "data", "2": "data"}))
    eventually(lambda: stepping(lab))
    thread = after(eventually, lambda: lab.heard("watched"), lab.open_gate)
    summary = lab.launch()
    thread.join()
    assert "watched" in lab.kinds()
    assert "failed in another launch" in summary.failed[lab.run("E0").name]
    assert lab.run("E0").attempts() == [1]


@pytest.mark.parametrize("seed", range(3))
def test_launchers_killed_at_random_change_no_result(lab: Lab, sources: Path, elsewhere: Any, seed: int) -> None:
    chance = random.Random(seed)
    code = "lab.ask(*pipelines(3)); sys.exit(lab.launch().exit_code)"
    for _ in range(3):
        process = elsewhere(code)
        time.sleep(chance.uniform(0.3, 1.2))
        process.send_signal(signal.SIGKILL)
        process.wait()
    lab.ask(*pipelines(3))
    assert lab.launch().exit_code == 0
    other = Lab(lab.root / "undisturbed")
    other.root.mkdir()
    other.store.root.mkdir()
    (other.store.root / "sources").symlink_to(sources)
    other.ask(*pipelines(3))
    other.launch()
    assert lab.values() == other.values()
    assert len(lab.ends()) == len(set(lab.ends())) == 7
