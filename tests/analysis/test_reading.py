"""Reading many runs: on one process or several, in one attempt or many, the same curves; finished runs once."""

from __future__ import annotations

import math
import random
from pathlib import Path

import pytest

from ablab.analysis import reading
from ablab.analysis.collect import collect
from ablab.analysis.curves import curves
from ablab.analysis.reading import read_all, read_traces
from ablab.analysis.results import RunRecord
from ablab.store.events import EventWriter, read_events
from ablab.store.layout import RunFolder, Store
from tests.report.filled import fill, smoke


def write(path: Path, attempts: int, noise: random.Random) -> RunFolder:
    """Write a run of some attempts, each from a step before the last one's end."""
    folder, step = RunFolder(path).create(), 0
    for number in range(1, attempts + 1):
        with EventWriter(folder.attempt(number).create().events) as events:
            events.log("start", step=step)
            for at in range(step + 1, step + 40):
                extra = {"balance": noise.random()} if at % 7 == 0 else {}
                events.log("step", step=at, loss=noise.random() if at % 11 else math.nan, lr=1e-3, **extra)
                if at % 10 == 0:
                    events.log("validation", step=at, values={"val/loss": noise.random()})
                    events.log("checkpoint", step=at, path=f"step-{at}", bytes=5, tags=["last"])
            events.log("resource", gpu_utilisation=0.25 * number)
            events.log("time", totals={"data": 1.0})
            events.log("time", totals={"data": 2.0, "other": 1.0})
        step += 30
    return folder


@pytest.mark.parametrize("attempts", [1, 2, 4])
def test_traces_are_those_of_the_events(tmp_path: Path, attempts: int) -> None:
    folder = write(tmp_path / "train-a", attempts, random.Random(attempts))
    told, events = read_traces(folder), read_events(folder)
    expected = curves(events)
    assert told.curves.keys() == expected.keys()
    for name, curve in expected.items():
        assert told.curves[name].steps == curve.steps
        assert all(a == b or (a != a and b != b) for a, b in zip(told.curves[name].values, curve.values, strict=True))
    assert list(told.checkpoints) == [event for event in events if event["e"] == "checkpoint"]
    assert told.time == {"data": 2.0 * attempts, "other": 1.0 * attempts}
    assert told.utilisation == pytest.approx(sum(0.25 * n for n in range(1, attempts + 1)) / attempts)


def test_several_processes_read_what_one_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folders = {f"key-{n}": write(tmp_path / f"train-{n}", 1 + n % 2, random.Random(n)) for n in range(9)}
    (tmp_path / "empty").mkdir()
    folders["empty"] = RunFolder(tmp_path / "empty")
    alone = read_all(folders)
    monkeypatch.setattr(reading, "MUCH", 0)
    monkeypatch.setattr("threading.active_count", lambda: 1)
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    together = read_all(folders)
    assert list(together) == list(alone)
    assert repr(together) == repr(alone)


def test_a_damaged_line_is_told_and_the_rest_is_read(tmp_path: Path) -> None:
    folder = write(tmp_path / "train-a", 1, random.Random(3))
    path = folder.attempt(1).events
    lines = path.read_bytes().splitlines(keepends=True)
    lines[5] = b'{"e":"step", broken\n'
    path.write_bytes(b"".join(lines) + b'{"e":"step","step":99,"lo')
    told = read_traces(folder)
    assert len(told.problems) == 1 and "line 6" in told.problems[0]
    assert len(told.curves["train/loss"].steps) == 38


def test_finished_runs_are_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, study = Store(tmp_path), smoke()
    plan = fill(store, study, status={("blind", 123, "train"): "running", ("blind", 123, "evaluate"): "pending"})
    known: dict[str, RunRecord] = {}
    first = collect(study, plan, store, known=known)
    asked: list[str] = []
    real = reading.read_traces
    monkeypatch.setattr(reading, "read_traces", lambda folder: asked.append(folder.name) or real(folder))
    second = collect(study, plan, store, known=known)
    assert repr(first) == repr(second)
    assert asked and all("train" in name for name in asked) and len(asked) < len(first.runs) / 2
