"""Failures by kind, through real processes: what is repeated, what is resumed, and what is left on disk of it."""

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
from lab_of_tests import Lab, experiment, pipelines, stage

from ablab.launch import desk

Eventually = Callable[..., Any]


def undisturbed(lab: Lab, sources: Path, *arms: Any, **ask: Any) -> dict[str, float | None]:
    """Return the values of the same study, run in peace in another store."""
    other = Lab(lab.root / "undisturbed")
    other.root.mkdir()
    other.store.root.mkdir()
    (other.store.root / "sources").symlink_to(sources)
    other.ask(*arms, **ask)
    assert other.launch().exit_code == 0
    return other.values()


def test_a_crash_is_repeated_once(lab: Lab) -> None:
    lab.ask(experiment("A", stage("train", fails={"1": "crash"})))
    assert lab.launch().exit_code == 0
    issues = lab.run("A").read_issues()
    assert [(issue["kind"], issue["attempt"], issue["resolution"]) for issue in issues] == [("crash", 1, "once more")]
    assert lab.run("A").attempts() == [1, 2]


def test_a_second_crash_ends_the_run_and_a_new_launch_tries_again(lab: Lab) -> None:
    lab.ask(experiment("A", stage("train", fails={"1": "crash", "2": "crash", "3": "crash"})))
    assert lab.launch().exit_code == 1
    assert lab.run("A").attempts() == [1, 2]
    assert "crashed 2 times" in lab.run("A").read_issues()[-1]["resolution"]
    assert lab.launch().exit_code == 0
    assert lab.run("A").attempts() == [1, 2, 3, 4]


def test_a_worker_without_a_last_word_has_its_log_quoted(lab: Lab) -> None:
    lab.ask(experiment("A", stage("train", fails={"1": "exit"})))
    lab.launch()
    issue = lab.run("A").read_issues()[0]
    assert issue["kind"] == "crash"
    assert "status 7" in issue["message"] and "the last words" in issue["message"]
    end = lab.run("A").attempt(1).read_end()
    assert end is not None and end["kind"] == "crash"


@pytest.mark.parametrize("kind", ["data", "config", "not-finite"])
def test_what_would_fail_again_is_not_repeated(lab: Lab, kind: str) -> None:
    lab.ask(experiment("A", stage("train", fails={"1": kind})))
    summary = lab.launch()
    assert summary.failed == {lab.run("A").name: f"made to fail: {kind}"}
    assert lab.run("A").attempts() == [1]


def test_memory_is_saved_step_by_step_with_the_same_batch(lab: Lab) -> None:
    lab.ask(experiment("A", stage("train", batch=24, memory=5)))
    assert lab.launch().exit_code == 0
    order, issues = lab.run("A").read_order(), lab.run("A").read_issues()
    assert order is not None and order.resources.micro_batch == 3
    assert order.parameters["batch"] == 24
    assert [issue["kind"] for issue in issues] == ["out-of-memory"] * 3
    assert [issue["detail"]["micro_batch"] for issue in issues] == [24, 12, 6]
    assert "micro-batch 6 -> 3, accumulation 8" in issues[-1]["resolution"]


def test_memory_that_cannot_be_saved_ends_the_run(lab: Lab) -> None:
    lab.ask(experiment("A", stage("train", batch=4, memory=0)))
    assert lab.launch().exit_code == 1
    assert [issue["detail"]["micro_batch"] for issue in lab.run("A").read_issues()] == [4, 2, 1]


def test_each_kind_of_stage_saves_its_own_memory(lab: Lab) -> None:
    lab.ask(
        experiment("A", stage("contrast", batch=8, memory=2)),
        experiment("B", stage("train"), stage("evaluate", "train", batch=8, memory=2)),
    )
    assert lab.launch().exit_code == 0
    contrast, evaluate = lab.run("A", "contrast").read_order(), lab.run("B", "evaluate").read_order()
    assert contrast is not None and contrast.resources.loss_chunk == 2
    assert evaluate is not None and evaluate.resources.evaluation_batch == 2


def test_saved_memory_stays_saved_at_the_next_launch(lab: Lab) -> None:
    lab.ask(experiment("A", stage("train", batch=8, memory=2, fails={"4": "data"})))
    assert lab.launch().exit_code == 0
    lab.ask(experiment("B", stage("train", tag="b", batch=8, memory=2, fails={"3@1": "data"})))
    assert lab.launch().exit_code == 1
    assert lab.launch().exit_code == 0
    assert [i["kind"] for i in lab.run("B").read_issues()] == ["out-of-memory", "out-of-memory", "data"]


def test_a_killed_worker_resumes_from_its_checkpoint(lab: Lab, sources: Path) -> None:
    fails = {"1@2": "kill", "2@4": "kill"}
    arm = experiment("A", stage("train", steps=6, fails=fails))
    lab.ask(arm)
    assert lab.launch().exit_code == 0
    assert [(i["kind"], i["attempt"]) for i in lab.run("A").read_issues()] == [("killed", 1), ("killed", 2)]
    assert lab.values() == undisturbed(lab, sources, experiment("A", stage("train", steps=6, fails=fails)))
    end = lab.run("A").attempt(1).read_end()
    assert end is not None and "SIGKILL" in end["message"]


def test_a_run_that_is_always_killed_is_given_up(lab: Lab) -> None:
    lab.ask(experiment("A", stage("train", every=100, fails={str(n): "kill" for n in range(1, 9)})))
    assert lab.launch().exit_code == 1
    assert lab.run("A").attempts() == [1, 2, 3, 4]
    assert "without a new checkpoint" in lab.run("A").read_issues()[-1]["resolution"]


def test_a_full_disk_pauses_everything_until_there_is_space(
    lab: Lab, eventually: Eventually, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = lab.root / "full"
    full.touch()
    monkeypatch.setattr(desk, "disk_free", lambda _: 0 if full.exists() else 10**12)
    lab.ask(
        experiment("A", stage("train", tag="a", fails_while=str(full))),
        experiment("B", stage("train", tag="b")),
    )

    def free() -> None:
        eventually(lambda: "paused" in lab.kinds())
        state = eventually(lambda: (s := lab.run("A").read_state()) and s.status == "paused" and s)
        seen.append(state.kind)
        seen.append(lab.run("B").exists)
        full.unlink()

    seen: list[object] = []
    thread = threading.Thread(target=free)
    thread.start()
    summary = lab.launch(slots=1)
    thread.join()
    assert seen == ["disk-full", False]
    assert summary.exit_code == 0
    assert [i["kind"] for i in lab.run("A").read_issues()] == ["disk-full"]


def test_space_that_was_made_before_the_launch_looked_is_space(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(desk, "disk_free", lambda _: 10**12)
    lab.ask(experiment("A", stage("train", fails={"1": "disk-full"})))
    assert lab.launch().exit_code == 0
    assert [i["kind"] for i in lab.run("A").read_issues()] == ["disk-full"]


def test_space_that_got_a_run_nowhere_is_not_tried_again(
    lab: Lab, eventually: Eventually, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = [10**12]
    monkeypatch.setattr(desk, "disk_free", lambda _: free[0])
    lab.ask(experiment("A", stage("train", steps=0, fails={"1": "disk-full", "2": "disk-full"})))

    def make_space() -> None:
        eventually(lambda: lab.kinds().count("paused") == 2)
        time.sleep(0.5)
        seen.append(lab.run("A").attempts())
        free[0] *= 2

    seen: list[object] = []
    thread = threading.Thread(target=make_space)
    thread.start()
    summary = lab.launch()
    thread.join()
    assert seen == [[1, 2]] and summary.exit_code == 0


def test_memory_of_others_is_waited_for(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    from ablab.launch import failures

    monkeypatch.setattr(failures, "LONGEST_WAIT", 0.2)
    lab.ask(experiment("A", stage("train", fails={"1": "memory-taken", "2": "memory-taken"})))
    began = time.monotonic()
    assert lab.launch().exit_code == 0
    assert time.monotonic() - began >= 0.4
    order = lab.run("A").read_order()
    assert order is not None and (order.attempt, order.resources.micro_batch) == (3, None)


def test_resumed_runs_keep_the_numerics_of_their_first_attempt(lab: Lab) -> None:
    lab.ask(experiment("A", stage("train", steps=4, fails={"1@2": "data"})))
    assert lab.launch(machine={"cores": 6}).exit_code == 1
    first = lab.run("A").read_order()
    assert first is not None and (first.resources.threads, first.numerics) == (6, None)
    assert lab.launch(machine={"cores": 8}).exit_code == 0
    second = lab.run("A").read_order()
    assert second is not None and second.numerics is not None
    assert (second.resources.threads, second.numerics.threads) == (6, 6)


def test_a_run_without_a_checkpoint_starts_with_numerics_of_its_own(lab: Lab) -> None:
    lab.ask(experiment("A", stage("train", fails={"1": "data"})))
    lab.launch(machine={"cores": 6})
    lab.launch(machine={"cores": 8})
    order = lab.run("A").read_order()
    assert order is not None and (order.resources.threads, order.numerics) == (8, None)


@pytest.mark.parametrize("seed", range(3))
def test_workers_killed_at_random_change_no_result(lab: Lab, sources: Path, eventually: Eventually, seed: int) -> None:
    lab.ask(*pipelines(3, steps=8))
    chance, killed, over = random.Random(seed), [], threading.Event()

    def murder() -> None:
        while not over.wait(chance.uniform(0.01, 0.15)) and len(killed) < 5:
            for pid in lab.pids():
                if pid not in killed and chance.random() < 0.3:
                    try:
                        os.kill(pid, signal.SIGKILL)
                        killed.append(pid)
                    except ProcessLookupError:
                        continue

    thread = threading.Thread(target=murder)
    thread.start()
    summary = lab.launch()
    over.set()
    thread.join()
    if summary.exit_code:
        # Without a new checkpoint in between, three kills are the end; the next launch goes on.
        summary = lab.launch()
    assert summary.exit_code == 0
    assert lab.values() == undisturbed(lab, sources, *pipelines(3, steps=8))
    # Nothing is finished twice (who is killed just after publishing leaves no line).
    assert len(lab.ends()) == len(set(lab.ends()))
