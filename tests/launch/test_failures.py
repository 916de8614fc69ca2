"""Each kind of failure has one policy, and none goes on for ever."""

from __future__ import annotations

from typing import Any, get_args

import pytest
from lab_of_tests import stage

from ablab.contract.failure import FailureKind
from ablab.contract.order import Resources
from ablab.launch.failures import Ending, History, decide

TRAIN = stage("train", batch=8)


def actions(*endings: tuple[FailureKind, str]) -> list[str]:
    """Return what follows a sequence of (kind, newest checkpoint)."""
    history, resources, found = History(), Resources(), []
    for number, (kind, checkpoint) in enumerate(endings, 1):
        ending = Ending(kind=kind, attempt=number, checkpoint=checkpoint)
        decision = decide(ending, history, stage=TRAIN, resources=resources)
        resources = decision.resources
        found.append(decision.action)
    return found


def test_a_crash_is_tried_once_more() -> None:
    assert actions(("crash", ""), ("crash", "")) == ["again", "stop"]


def test_the_same_crash_after_progress_is_still_the_same_crash() -> None:
    assert actions(("crash", "a"), ("killed", "b"), ("crash", "c")) == ["again", "again", "stop"]


@pytest.mark.parametrize("kind", ["killed", "lost", "time-limit"])
def test_three_resumes_without_a_new_checkpoint_end_a_run(kind: FailureKind) -> None:
    assert actions(*[(kind, "")] * 4) == ["again"] * 3 + ["stop"]


def test_interruptions_of_different_kinds_count_together() -> None:
    assert actions(("killed", ""), ("lost", ""), ("time-limit", ""), ("killed", ""))[-1] == "stop"


def test_progress_starts_the_count_anew() -> None:
    assert actions(*[("killed", str(step)) for step in range(20)]) == ["again"] * 20


@pytest.mark.parametrize("kind", ["not-finite", "data", "config"])
def test_what_would_fail_again_stops_at_once(kind: FailureKind) -> None:
    assert actions((kind, "")) == ["stop"]


def test_memory_shrinks_until_nothing_is_left() -> None:
    assert actions(*[("out-of-memory", "")] * 4) == ["again"] * 3 + ["stop"]


def test_waiting_grows_longer_and_has_a_limit() -> None:
    history, delays = History(), []
    for _ in range(10):
        decision = decide(Ending(kind="memory-taken"), history, stage=TRAIN, resources=Resources())
        assert decision.action == "wait"
        delays.append(decision.delay)
    assert delays == sorted(delays) and 0 < delays[0] <= delays[-1] <= 60


def test_a_full_disk_pauses() -> None:
    assert actions(*[("disk-full", "")] * 5) == ["pause"] * 5


@pytest.mark.parametrize("kind", get_args(FailureKind))
def test_every_kind_is_decided_with_words_and_ends(kind: Any) -> None:
    history, resources = History(), Resources()
    for _ in range(2000):
        decision = decide(Ending(kind=kind), history, stage=TRAIN, resources=resources)
        assert decision.resolution
        resources = decision.resources
        if decision.action == "stop":
            return
    raise AssertionError(f"{kind} goes on for ever")
