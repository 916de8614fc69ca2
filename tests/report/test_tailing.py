"""Curves of running runs, read as their files grow."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ablab.report import tailing
from ablab.report.tailing import Tails
from ablab.store.events import EventWriter
from ablab.store.layout import RunFolder


def step(number: int, loss: float = 1.0) -> str:
    return json.dumps({"e": "step", "step": number, "loss": loss}) + "\n"


def steps(tails: Tails) -> list[int]:
    return [int(number) for number, _ in tails.losses("r")]


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return RunFolder(tmp_path / "train-1").create()


def test_what_was_appended_is_read_and_a_torn_line_waits_for_its_end(run: RunFolder) -> None:
    tails = Tails()
    tails.read("r", run)
    assert tails.losses("r") == []
    path = run.attempt(1).create().events
    path.write_text('{"format":1}\n' + step(1, 3.0) + step(2, 2.0) + step(3, 1.5)[:10])
    tails.read("r", run)
    assert tails.losses("r") == [(1.0, 3.0), (2.0, 2.0)]
    with path.open("a") as stream:
        stream.write(step(3, 1.5)[10:] + "nonsense step\n" + step(4, float("nan")))
    tails.read("r", run)
    assert tails.losses("r")[-1] == (3.0, 1.5)


def test_a_resumed_attempt_goes_on_from_where_it_began(run: RunFolder) -> None:
    with EventWriter(run.attempt(1).create().events) as events:
        events.log("start", step=0)
        for number in range(1, 9):
            events.log("step", step=number, loss=1.0)
        events.log("validation", step=8, values={"val/loss": 1.0})
    tails = Tails()
    tails.read("r", run)
    with EventWriter(run.attempt(2).create().events) as events:
        events.log("start", step=5)
        events.log("step", step=6, loss=0.5)
    tails.read("r", run)
    assert steps(tails) == [1, 2, 3, 4, 5, 6]
    fresh = Tails()
    fresh.read("r", run)
    assert fresh.losses("r") == tails.losses("r")
    assert fresh.validations("r", "val/loss") == {8: 1.0}


def test_a_long_file_is_read_from_near_its_end(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tailing, "FIRST", 2000)
    run.attempt(1).create().events.write_text("".join(step(number) for number in range(1, 1001)))
    tails = Tails()
    tails.read("r", run)
    found = steps(tails)
    assert found[-1] == 1000
    assert 10 < len(found) < 60
    assert found == list(range(found[0], 1001))


def test_points_are_bounded_and_keep_their_order(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tailing, "POINTS", 50)
    run.attempt(1).create().events.write_text("".join(step(number) for number in range(1, 400)))
    tails = Tails()
    tails.read("r", run)
    assert len(steps(tails)) <= 50
    assert steps(tails) == sorted(steps(tails))


def test_runs_that_are_shown_no_more_are_forgotten(run: RunFolder) -> None:
    run.attempt(1).create().events.write_text(step(1))
    tails = Tails()
    tails.read("r", run)
    tails.keep([])
    assert tails.losses("r") == ()
